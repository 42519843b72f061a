"""The entropic softmax with composable priors: `softmax`, `softmax_with_duals`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .. import _ffi
from .._arrays import MASK
from .._call import choice, integer, positive
from .._softmax_call import SoftmaxCall
from ..errors import InvalidTypeError
from ..priors import TV, Star, ThresholdDynamics, Volume
from ..result import MODES
from ..softmax import default_checkpoint, set_options
from ._arguments import Given, dtype_name, fitted, is_array, saved_bytes, stand_in, varying_alike
from ._softmax import Plan, solve
from .report import Report, read

_DUALS = ("tv_dual", "volume_dual", "star_dual")


class SoftmaxOutput(NamedTuple):
    """What `softmax_with_duals` returns: constants but for `u`, no gradient goes through them."""

    u: Any  #: [B, I, *S], the features' dtype
    tv_dual: Any  #: q [B, I, nd, *S]; None without the TV prior
    volume_dual: Any  #: f [B, I], -inf for an excluded class; None without the volume prior
    star_dual: Any  #: g [B, M, *S], >= 0; None without star classes
    report: Report  #: status, iterations, residual [B]


def softmax(
    features: Any,
    eps: Any = 1.0,
    iters: int = 30,
    init_eps: float | None = None,
    tol: float | None = None,
    tv: TV | None = None,
    accelerate: bool | None = None,
    volume: Volume | None = None,
    spacing: Sequence[float] | None = None,
    warm_start: SoftmaxOutput | tuple[Any, ...] | None = None,
    *,
    td: ThresholdDynamics | None = None,
    star: Sequence[Star] | None = None,
    mask: Any = None,
    checkpoint: int | None = None,
    compact_saved: bool = False,
    check_interval: int = 10,
    path: str = "auto",
    mode: str = "unrolled",
    implicit_iters: int = 1000,
    implicit_tol: float = 1e-6,
) -> jax.Array:
    """Entropic softmax with any mix of priors, as `segprior.softmax` computes it: u [B, I, *S].

    Works under `jit`, `grad` and `value_and_grad`, `vmap`, `checkpoint`, in loops and conditions. Reverse
    mode and first derivatives only. Every argument with a derivative has its gradient if it is a JAX array:
    features, eps, lam, tau, edge, volumes and bounds, sigma, kernel, centres.

    Args:
        features: o [B, I, *S]; float32, float64 (JAX's 64-bit mode), float16 or bfloat16.
        eps, tv, volume, td, star: as `segprior.softmax`. A number is a constant of the program, an array of
            one element is not. Arrays are converted to float64 if the features are, else float32.
        warm_start: a `SoftmaxOutput`, or (tv_dual, volume_dual) or (tv_dual, volume_dual, star_dual), any of
            them None; a constant, no gradient goes through it.
        mask: bool or uint8 [*S], [1, *S] or [B, *S]; 0: masked.
        mode: what is differentiated: "unrolled" all iterations, "implicit" the limit (give a `tol`; not for
            the steps tau), "last" the last softmax only, for the features alone.
        implicit_iters, implicit_tol: cap and tolerance of the implicit gradient's iteration. Its report
            cannot be read here: where it may not converge, look at `segprior.softmax(...).backward(...).info`
            once.
        checkpoint: interval at which iterates are kept for the gradient, >= 1 (without a gradient nothing is
            kept). None: about sqrt(iters); mode "implicit": the last one alone.
        init_eps, iters, tol, accelerate, spacing, compact_saved, check_interval, path: as `segprior.softmax`;
            numbers, constants of the program.

    `vmap` takes any arguments as mapped. Where each image has its own arguments and gradients, as with mapped
    features alone, it is one call with more images; a mapped eps, or a gradient for a shared one, makes a
    loop of calls. Each device's part of the batch may go through `shard_map` or `pmap`; the compiler's own
    partitioner does not know the call and gathers its arguments on every device.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is wrong; the text names it. While tracing.
        NotSupportedError: a derivative that does not exist: of the gradient, or by `mode`.
        LibraryError: libsegprior_jax.so is missing or belongs to another jaxlib.
        Errors in the values of arrays, eps <= 0 say, make the image's u NaN and show in the report.

    References: [VPTV] arXiv 1909.09931, Algorithm 1; [STD] arXiv 2002.03989, Algorithms 1-3.
    """
    return _softmax(**locals(), duals=False).u


def softmax_with_duals(
    features: Any,
    eps: Any = 1.0,
    iters: int = 30,
    init_eps: float | None = None,
    tol: float | None = None,
    tv: TV | None = None,
    accelerate: bool | None = None,
    volume: Volume | None = None,
    spacing: Sequence[float] | None = None,
    warm_start: SoftmaxOutput | tuple[Any, ...] | None = None,
    *,
    td: ThresholdDynamics | None = None,
    star: Sequence[Star] | None = None,
    mask: Any = None,
    checkpoint: int | None = None,
    compact_saved: bool = False,
    check_interval: int = 10,
    path: str = "auto",
    mode: str = "unrolled",
    implicit_iters: int = 1000,
    implicit_tol: float = 1e-6,
) -> SoftmaxOutput:
    """`softmax` with the duals, for a warm start, and the report of each image."""
    return _softmax(**locals(), duals=True)


def _softmax(
    features: Any,
    eps: Any,
    tv: Any,
    volume: Any,
    warm_start: Any,
    td: Any,
    star: Any,
    mask: Any,
    duals: bool,
    **options: Any,
) -> SoftmaxOutput:
    features = jnp.asarray(features) if is_array(features) else features
    call = SoftmaxCall(stand_in(features) if is_array(features) else features, None, None)
    given = Given(features)
    given.arrays["features"] = features
    _set_options(call, **options)
    call.add_scalar("eps", given.scalar("eps", eps))
    _add_priors(call, given, tv, volume, td, star)
    if mask is not None:
        call.add_field("mask", given.array("mask", mask), MASK)
    _add_warm_start(call, given, warm_start)
    arrays = {
        name: array if name.startswith("star_") else fitted(array, call.views[name].shape)
        for name, array in given.arrays.items()
    }
    plan = _plan(call, arrays, options["mode"], duals)
    found = solve(plan, varying_alike(arrays))
    kept = {name: jax.lax.stop_gradient(found[name]) if name in found else None for name in _DUALS}
    return SoftmaxOutput(found["u"], **kept, report=read(found["info"], (plan.images,)))


def _plan(call: SoftmaxCall, arrays: dict[str, Any], mode: str, duals: bool) -> Plan:
    lib, real = _ffi.library(), "float64" if call.parameter_dtype == _ffi.FLOAT64 else "float32"
    size = saved_bytes(call, call.views.values(), lib.softmax_saved_size, call.opts, call.inputs)
    options = _ffi.SoftmaxOpts.from_buffer_copy(call.opts)
    options.star_classes = None  # an address: the classes have an attribute of their own
    made = {"tv_dual": call.opts.tv, "volume_dual": call.has_volume, "star_dual": call.star_classes}
    wanted = tuple((name, call.shape_of(name)) for name in _DUALS if duals and made[name])
    shape = tuple(arrays["features"].shape)
    return Plan(
        options=bytes(options),
        star_classes=call.star_classes,
        features=(shape, dtype_name(arrays["features"])),
        real=real,
        duals=wanted,
        saved_bytes=size,
        mode=mode,
    )


def _set_options(
    call: SoftmaxCall, *, checkpoint: Any, mode: Any, implicit_iters: Any, implicit_tol: Any, **others: Any
) -> None:
    spacing = others["spacing"]
    if spacing is not None and (not isinstance(spacing, Sequence) or isinstance(spacing, str)):
        raise InvalidTypeError(f"spacing is {spacing!r}; it must be one number per spatial axis")
    set_options(call, **others)
    opts = call.opts
    opts.backward_mode = choice("mode", mode, MODES)
    if checkpoint is not None:
        opts.checkpoint_interval = integer("checkpoint", checkpoint, 1)
    elif mode == "implicit":
        opts.checkpoint_interval = max(1, opts.iterations)
    else:
        opts.checkpoint_interval = default_checkpoint(opts.iterations)
    opts.implicit_iterations = integer("implicit_iters", implicit_iters, 1)
    opts.implicit_tolerance = positive("implicit_tol", implicit_tol)


def _add_priors(call: SoftmaxCall, given: Given, tv: Any, volume: Any, td: Any, star: Any) -> None:
    """Anything but a prior goes to the check as it is, which says so."""
    if isinstance(tv, TV):
        lam, tau = given.scalar("tv_lam", tv.lam), given.scalar("tv_tau", tv.tau)
        tv = TV(lam, tau, given.numbers("tv_edge", tv.edge))
    if tv is not None:
        call.add_tv(tv)
    if isinstance(volume, Volume):
        bounds = {"volume": volume.v, "volume_lower": volume.lower, "volume_upper": volume.upper}
        volume = Volume(*(given.numbers(name, value) for name, value in bounds.items()))
    if volume is not None:
        call.add_volume(volume)
    if isinstance(td, ThresholdDynamics):
        kernel = given.numbers("td_kernel", td.kernel)
        sigma = td.sigma if kernel is not None else given.scalar("td_sigma", td.sigma)
        lam = given.scalar("td_lam", td.lam)
        td = ThresholdDynamics(lam, td.size, sigma, kernel, given.numbers("td_edge", td.edge))
    if td is not None:
        call.add_threshold_dynamics(td)
    if isinstance(star, (list, tuple)) and all(isinstance(one, Star) for one in star):
        star = _add_stars(call, given, star)
    if star is not None:
        call.add_stars(star)


def _add_stars(call: SoftmaxCall, given: Given, stars: Sequence[Star]) -> list[Star]:
    """The stars with stand-ins; their centres and steps are stacked in `given`."""
    found = Given(given.arrays["features"])
    stood = [
        Star(one.cls, found.numbers(f"center {m}", one.center), found.scalar(f"tau {m}", one.tau))
        for m, one in enumerate(stars)
    ]
    # A copy, so that wrong shapes are reported before they are stacked.
    SoftmaxCall(stand_in(given.arrays["features"]), None, None).add_stars(stood)
    if not stars:
        return stood
    shape = (call.batch, len(call.spatial))
    centers = [jnp.broadcast_to(found.arrays[f"center {m}"], shape) for m in range(len(stars))]
    given.arrays["star_center"] = jnp.stack(centers, 1)
    if any(is_array(one.tau) for one in stars) or len({one.tau for one in stars}) > 1:
        steps = [found.arrays.get(f"tau {m}", one.tau) for m, one in enumerate(stars)]
        given.arrays["star_tau"] = jnp.stack([jnp.asarray(tau, given.real).reshape(()) for tau in steps])
    return stood


def _add_warm_start(call: SoftmaxCall, given: Given, start: Any) -> None:
    """An earlier output serves whatever priors this call has; a dual given by hand must have its prior."""
    if start is None:
        return
    if isinstance(start, SoftmaxOutput):
        has_prior = (call.opts.tv, call.has_volume, call.star_classes)
        duals = [dual if prior else None for dual, prior in zip(start[1:4], has_prior)]
    elif isinstance(start, (tuple, list)) and len(start) in (2, 3):
        duals = list(start)
    else:
        raise InvalidTypeError(
            "warm_start must be a SoftmaxOutput, (tv_dual, volume_dual) or (tv_dual, volume_dual, star_dual)"
        )
    for name, dual in zip(_DUALS, duals):
        if dual is not None:
            stood = given.numbers(f"init_{name}", dual)
            call.add(f"init_{name}", call.view(stood, f"warm_start's {name}"))
            given.arrays[f"init_{name}"] = jax.lax.stop_gradient(given.arrays[f"init_{name}"])
