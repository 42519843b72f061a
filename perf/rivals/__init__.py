"""What libsegprior is compared with: one module per rival, all with the same three names.

NAME; unavailable(device) -> the reason why it cannot run here, or None; and
make(problem, device, backward) -> a function without arguments that computes u, or (u, gradient of
<u, grad_u> with respect to the features), on inputs that already lie on the device.
"""
