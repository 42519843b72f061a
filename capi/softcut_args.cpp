// Checks of every option and tensor of the SoftCut calls.
#include "capi/softcut_args.h"

#include <algorithm>
#include <string>

#include "capi/options.h"
#include "capi/rules.h"

namespace segprior::softcut {
namespace {

constexpr int kDefaultCap = 2000, kDefaultMultigridCap = 500;

void check_opts(const segprior_softcut_opts &o) {
  require(o.solver >= SEGPRIOR_SOFTCUT_AUTO && o.solver <= SEGPRIOR_SOFTCUT_DIRECT, "solver", o.solver,
          "SEGPRIOR_SOFTCUT_AUTO (0), _CG (1), _JACOBI (2), _MULTIGRID (3), _CHEBYSHEV (4) or _DIRECT (5)");
  require(o.max_iterations >= 0, "max_iterations", o.max_iterations, ">= 0");
  require(positive(o.tolerance), "tolerance", o.tolerance, "> 0 and finite");
  require(o.norm == SEGPRIOR_NORM_L2 || o.norm == SEGPRIOR_NORM_L1, "norm", o.norm,
          "SEGPRIOR_NORM_L2 (0) or SEGPRIOR_NORM_L1 (1)");
  require(flag(o.absolute), "absolute", o.absolute, "0 or 1");
  require(flag(o.batch), "batch", o.batch, "0 or 1");
  require(flag(o.accumulate), "accumulate", o.accumulate, "0 or 1");
  require(positive(o.backward_tolerance), "backward_tolerance", o.backward_tolerance, "> 0 and finite");
  require(o.backward_max_iterations >= 0, "backward_max_iterations", o.backward_max_iterations, ">= 0");
  require(o.path >= SEGPRIOR_PATH_AUTO && o.path <= SEGPRIOR_PATH_PERSISTENT, "path", o.path,
          "SEGPRIOR_PATH_AUTO (0), _STREAMING (1), _ON_CHIP (2), _CLUSTER (3) or _PERSISTENT (4)");
}

void read_stops(const segprior_softcut_opts &o, Problem &p) {
  int cap = o.max_iterations;
  if (cap == 0) cap = o.solver == SEGPRIOR_SOFTCUT_MULTIGRID ? kDefaultMultigridCap : kDefaultCap;
  const int backward_cap = o.backward_max_iterations > 0 ? o.backward_max_iterations : cap;
  p.stop = {o.norm == SEGPRIOR_NORM_L1 ? Norm::l1 : Norm::l2, o.absolute == 1, o.batch == 1, o.tolerance,
            cap};
  p.backward_stop = {Norm::l2, false, false, o.backward_tolerance, backward_cap};
}

// The public slot of a family: edges[axis] for the axes, in the order of the spatial axes, then the
// diagonals.
struct Slot {
  bool diagonal;
  int index;
};
Slot slot_of(const Grid &g, int family) {
  return family >= kDiagonal ? Slot{true, family - kDiagonal} : Slot{false, family - (3 - g.nd)};
}

// Constants, because a range of the overlap check keeps its name.
const char *slot_name(const char *const (&names)[5], Slot slot) {
  return names[slot.index + (slot.diagonal ? 3 : 0)];
}
constexpr const char *kInputNames[5] = {"inputs.edges[0]", "inputs.edges[1]", "inputs.edges[2]",
                                        "inputs.diagonals[0]", "inputs.diagonals[1]"};
constexpr const char *kGradNames[5] = {"grads.edges[0]", "grads.edges[1]", "grads.edges[2]",
                                       "grads.diagonals[0]", "grads.diagonals[1]"};
constexpr const char *kCotangentNames[5] = {"cotangents.edges[0]", "cotangents.edges[1]",
                                            "cotangents.edges[2]", "cotangents.diagonals[0]",
                                            "cotangents.diagonals[1]"};

template <class Structure>
const segprior_tensor *slot_tensor(const Structure &s, Slot slot) {
  return slot.diagonal ? s.diagonals[slot.index] : s.edges[slot.index];
}

}  // namespace

segprior_softcut_opts default_opts() {
  segprior_softcut_opts o{};
  o.struct_size = sizeof o;
  o.tolerance = o.backward_tolerance = 1e-6;
  return o;
}

segprior_softcut_opts read_opts(const segprior_softcut_opts *given) {
  const segprior_softcut_opts o = read_struct(given, default_opts(), "opts");
  check_opts(o);
  return o;
}

Call::Call(const segprior_context &context, const segprior_softcut_opts &opts,
           const segprior_softcut_inputs *inputs_in, bool sizes_only)
    : arguments(context, sizes_only), accumulate_(opts.accumulate == 1) {
  inputs = read_struct(inputs_in, segprior_softcut_inputs{}, "inputs");
  Problem &p = problem;
  p = {};
  p.scores = arguments.lead("inputs.scores", inputs.scores, 3, 5);
  const segprior_tensor &scores = *inputs.scores;
  if (arguments.field_dtype() != arguments.dtype())
    reject(SEGPRIOR_ERROR_DTYPE, "inputs.scores: dtype = " + std::to_string(scores.dtype) +
                                     " must be SEGPRIOR_FLOAT32 (1) or SEGPRIOR_FLOAT64 (2)");
  field = shape_of(scores);
  Grid &g = p.grid;
  g.images = scores.shape[0];
  g.classes = scores.shape[1];
  g.nd = scores.ndim - 2;
  for (int a = 0; a < 3; ++a) g.extent[a] = a < 3 - g.nd ? 1 : scores.shape[2 + a - (3 - g.nd)];
  p.dtype = arguments.dtype() == SEGPRIOR_FLOAT32 ? DType::f32 : DType::f64;
  p.solver = static_cast<Solver>(opts.solver);
  p.path = static_cast<Path>(opts.path);
  read_stops(opts, p);
  read_edges();
  p.has_init = inputs.init != nullptr;
  p.init = arguments.input("inputs.init", inputs.init, field);
}

// The shape of a family's tensor; the voxels' where the extent along a step would be negative (an empty
// grid).
Shape Call::edge_shape(int family) const {
  const Grid &g = problem.grid;
  Shape shape{{g.images, g.shared ? 1 : g.classes}, 2};
  for (int axis = 3 - g.nd; axis < 3; ++axis)
    shape.extent[shape.ndim++] = std::max<int64_t>(g.edge_extent(family, axis), 0);
  return shape;
}

const void *Call::read_weight(const char *name, const segprior_tensor *tensor, const Shape &shape,
                              bool required) {
  return arguments.input(name, tensor, shape, required, Kind::weight);
}

void Call::read_edges() {
  Problem &p = problem;
  Grid &g = p.grid;
  for (int m = g.nd; m < 3; ++m)
    needs(kInputNames[m], inputs.edges[m], false, "more spatial axes than inputs.scores has");
  for (int d = 0; d < 2; ++d) needs(kInputNames[3 + d], inputs.diagonals[d], g.nd == 2, "2 spatial axes");
  for (int d = 0; d < 2; ++d) {
    if (!inputs.diagonals[d] && inputs.diagonals[1 - d])
      reject(SEGPRIOR_ERROR_NULL_POINTER,
             std::string(kInputNames[3 + d]) + " is NULL, but the other diagonal is given");
  }
  const segprior_tensor *first = inputs.edges[0];
  if (!first) reject(SEGPRIOR_ERROR_NULL_POINTER, "inputs.edges[0] is NULL");
  // The first array decides whether the classes share a matrix; with one class both readings are the same.
  g.shared = first->ndim >= 2 && first->shape && first->shape[1] == 1;
  arguments.weights_like(*first);
  p.storage = arguments.weight_dtype() == SEGPRIOR_FLOAT16    ? Storage::f16
              : arguments.weight_dtype() == SEGPRIOR_BFLOAT16 ? Storage::bf16
                                                              : Storage::native;
  for (int f = 0; f < kFamilies; ++f) {
    const bool axis = f < kDiagonal;
    g.has[f] = axis ? f >= 3 - g.nd : inputs.diagonals[0] != nullptr;
    if (!g.has[f]) continue;
    const Slot slot = slot_of(g, f);
    p.edges[f] = read_weight(slot_name(kInputNames, slot), slot_tensor(inputs, slot), edge_shape(f), true);
  }
  p.has_conductance = inputs.conductance != nullptr;
  Shape shape = field;
  if (g.shared) shape.extent[1] = 1;
  p.conductance = arguments.input("inputs.conductance", inputs.conductance, shape);
}

Outputs Call::read_outputs(const segprior_softcut_outputs *given_outputs) {
  const segprior_softcut_outputs given = read_struct(given_outputs, segprior_softcut_outputs{}, "outputs");
  return {arguments.output("outputs.x", given.x, field, true),
          read_info(given.info, "outputs.info", problem.grid.systems())};
}

segprior_info *Call::read_info(segprior_info *given, const char *name, int64_t count) {
  if (!given || empty()) return nullptr;
  return static_cast<segprior_info *>(
      arguments.output_bytes(name, given, count * sizeof(segprior_info), alignof(segprior_info)));
}

template <class Structure, class Read>
void Call::read_families(const char *const (&names)[5], const Structure &given, const Read &read) {
  const Grid &g = problem.grid;
  for (int m = g.nd; m < 3; ++m) needs(names[m], given.edges[m], false, "inputs.edges of that axis");
  for (int d = 0; d < 2; ++d)
    needs(names[3 + d], given.diagonals[d], g.has[kDiagonal + d], "inputs.diagonals");
  for (int f = 0; f < kFamilies; ++f) {
    if (!g.has[f]) continue;
    const Slot slot = slot_of(g, f);
    read(f, slot_name(names, slot), slot_tensor(given, slot));
  }
}

Grads Call::read_grads(const segprior_softcut_grads *given) {
  const segprior_softcut_grads grads = read_struct(given, segprior_softcut_grads{}, "grads");
  Grads out{};
  out.accumulate = accumulate_;
  out.scores = arguments.output("grads.scores", grads.scores, field);
  read_families(kGradNames, grads, [&](int f, const char *name, const segprior_tensor *tensor) {
    out.edges[f] = arguments.output(name, tensor, edge_shape(f), false, Kind::weight);
  });
  out.conductance = write_conductance(grads.conductance);
  out.info = read_info(grads.info, "grads.info", problem.grid.systems());
  return out;
}

void *Call::write_conductance(const segprior_tensor *tensor) {
  needs("grads.conductance", tensor, problem.has_conductance, "inputs.conductance");
  return tensor ? arguments.output("grads.conductance", tensor, shape_of(*inputs.conductance)) : nullptr;
}

Cotangents Call::read_cotangents(const segprior_softcut_cotangents *given) {
  const segprior_softcut_cotangents c = read_struct(given, segprior_softcut_cotangents{}, "cotangents");
  Cotangents in{};
  in.scores = arguments.input("cotangents.scores", c.scores, field);
  read_families(kCotangentNames, c, [&](int f, const char *name, const segprior_tensor *tensor) {
    in.edges[f] = read_weight(name, tensor, edge_shape(f), false);
  });
  needs("cotangents.conductance", c.conductance, problem.has_conductance, "inputs.conductance");
  if (c.conductance)
    in.conductance = arguments.input("cotangents.conductance", c.conductance, shape_of(*inputs.conductance));
  return in;
}

SecondGrads Call::read_second_grads(const segprior_softcut_second_grads *given) {
  const segprior_softcut_second_grads grads = read_struct(given, segprior_softcut_second_grads{}, "grads");
  SecondGrads out{};
  out.accumulate = accumulate_;
  out.grad_x = arguments.output("grads.grad_x", grads.grad_x, field);
  out.scores = arguments.output("grads.scores", grads.scores, field);
  read_families(kGradNames, grads, [&](int f, const char *name, const segprior_tensor *tensor) {
    out.edges[f] = arguments.output(name, tensor, edge_shape(f), false, Kind::weight);
  });
  out.conductance = write_conductance(grads.conductance);
  out.info = read_info(grads.info, "grads.info", 2 * problem.grid.systems());
  return out;
}

}  // namespace segprior::softcut
