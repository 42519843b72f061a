-- Segments a noisy picture with the softmax and its total-variation and volume priors, compares the gradient of
-- a loss with a finite difference, solves a SoftCut system, and shows what a refused call says.
--   luajit bindings/lua/example.lua
local ffi = require "ffi"
package.path = (arg[0]:match ".*/" or "./") .. "?.lua;" .. package.path
local segprior = require "segprior"
local C, check = segprior.C, segprior.check

local ROWS, COLUMNS = 16, 40
local VOXELS = ROWS * COLUMNS
local context = segprior.context()

-- ---- The picture: a disc in noise -------------------------------------------------------------------------

local function inside(x)
  local row, column = math.floor(x / COLUMNS) - 7.5, (x % COLUMNS - 19.5) / 2
  return row * row + column * column < 36 and 1 or 0
end

local noise, state = {}, 1
for x = 0, VOXELS - 1 do
  state = (state * 16807) % 2147483647 -- exact in doubles
  noise[x] = state / 2147483647 - 0.5
end

local features = segprior.tensor("double", { 1, 2, ROWS, COLUMNS })
-- Of the bright class and the other one; `shift` moves them along the direction sin(k).
local function fill_features(shift)
  for x = 0, VOXELS - 1 do
    local value = inside(x) - 0.5 + 1.6 * noise[x]
    features.data[x] = value + shift * math.sin(x)
    features.data[VOXELS + x] = -value + shift * math.sin(VOXELS + x)
  end
end
fill_features(0)

local volume = segprior.tensor("double", { 1, 2 })
for x = 0, VOXELS - 1 do volume.data[0] = volume.data[0] + inside(x) end
volume.data[1] = VOXELS - volume.data[0]

-- ---- Softmax, forward and backward ------------------------------------------------------------------------

local u = segprior.tensor("double", { 1, 2, ROWS, COLUMNS })
local grad_u = segprior.tensor("double", { 1, 2, ROWS, COLUMNS })
local grad_features = segprior.tensor("double", { 1, 2, ROWS, COLUMNS })
local options = segprior.options("segprior_softmax_opts", {
  iterations = 60,
  eps = 0.5,
  tv = 1,
  tv_lam = 0.5,
  backward_mode = C.SEGPRIOR_BACKWARD_UNROLLED,
  checkpoint_interval = 10,
})
local inputs = segprior.struct("segprior_softmax_inputs", { features = features, volume = volume })
local outputs = segprior.struct("segprior_softmax_outputs", { u = u })
local grads = segprior.struct("segprior_softmax_grads", { features = grad_features })

local bytes = ffi.new "size_t[3]"
check(C.segprior_softmax_workspace_size(context, options, inputs, bytes, bytes + 1))
check(C.segprior_softmax_saved_size(context, options, inputs, bytes + 2))
local forward_space, backward_space = segprior.buffer(bytes[0]), segprior.buffer(bytes[1])
local saved = segprior.buffer(bytes[2])

-- loss = 1/2 sum_x (u_bright(x) - inside(x))^2; its gradient goes to grad_u.
local function loss()
  check(C.segprior_softmax_forward(context, options, inputs, outputs, forward_space.data, forward_space.bytes,
    saved.data, saved.bytes))
  local sum = 0
  for x = 0, VOXELS - 1 do
    grad_u.data[x] = u.data[x] - inside(x)
    sum = sum + grad_u.data[x] ^ 2 / 2
  end
  return sum
end

loss()
local bright = 0
for x = 0, VOXELS - 1 do
  bright = bright + u.data[x]
  io.write(u.data[x] > 0.5 and "#" or ".", x % COLUMNS == COLUMNS - 1 and "\n" or "")
end
print(("volume of the bright class: asked for %d, reached %.6f"):format(volume.data[0], bright))

check(C.segprior_softmax_backward(context, options, inputs, nil, grad_u.c, grads, backward_space.data,
  backward_space.bytes, saved.data, saved.bytes))
local derivative = 0
for k = 0, 2 * VOXELS - 1 do derivative = derivative + grad_features.data[k] * math.sin(k) end
local step = 1e-5
fill_features(step)
local above = loss()
fill_features(-step)
local difference = (above - loss()) / (2 * step)
print(("directional derivative: %.8f by backward, %.8f by a finite difference"):format(derivative, difference))

-- ---- SoftCut ----------------------------------------------------------------------------------------------

local scores = segprior.tensor("double", { 1, 1, ROWS, COLUMNS })
local x = segprior.tensor("double", { 1, 1, ROWS, COLUMNS })
local down = segprior.tensor("double", { 1, 1, ROWS - 1, COLUMNS })
local across = segprior.tensor("double", { 1, 1, ROWS, COLUMNS - 1 })
local total = 0
for k = 0, VOXELS - 1 do
  scores.data[k] = inside(k) - 0.5 + 1.6 * noise[k]
  total = total + scores.data[k]
end
for _, edges in ipairs { down, across } do
  for k = 0, edges.size - 1 do edges.data[k] = 2 end
end
local info = ffi.new "segprior_info[1]"
local cut_options = segprior.options("segprior_softcut_opts", { tolerance = 1e-10 })
local cut_inputs = segprior.struct("segprior_softcut_inputs", { scores = scores, edges = { down, across } })
local cut_outputs = segprior.struct("segprior_softcut_outputs", { x = x, info = info })
check(C.segprior_softcut_workspace_size(context, cut_options, cut_inputs, bytes, nil, nil))
check(C.segprior_softcut_saved_size(context, cut_options, cut_inputs, bytes + 2))
local cut_space, cut_saved = segprior.buffer(bytes[0]), segprior.buffer(bytes[2])
check(C.segprior_softcut_forward(context, cut_options, cut_inputs, cut_outputs, cut_space.data,
  cut_space.bytes, cut_saved.data, cut_saved.bytes))
local kept = 0
for k = 0, VOXELS - 1 do kept = kept + x.data[k] end
print(("SoftCut: %d iterations, residual %.1e; sum of scores %.6f, of the solution %.6f"):format(
  info[0].iterations, info[0].residual, total, kept))

-- ---- A refused call ---------------------------------------------------------------------------------------

options.eps = -0.5
local accepted, message = pcall(loss)
print("eps = -0.5: " .. tostring(message))

local right = math.abs(bright - volume.data[0]) < 0.1
  and math.abs(derivative - difference) < 1e-6 * (1 + math.abs(difference))
  and info[0].status == C.SEGPRIOR_CONVERGED
  and math.abs(total - kept) < 1e-6 * VOXELS -- the matrix has row sums of 1
  and not accepted
  and message:find("opts.eps = -0.5", 1, true)
if not right then
  io.stderr:write "unexpected result\n"
  os.exit(1)
end
