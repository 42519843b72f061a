// Copies in and out of a call, and of what forward saves for backward. Features and grad_u are copied when
// they are 16-bit or when there is a mask: a masked voxel may hold NaN, which a factor of 0 would not remove.
// Results are copied only when 16-bit. Bytes per voxel and class, once a call: 6 each way for 16-bit storage,
// 8 for a masked float32 input.
#include "kernels/softmax/softmax_stage.h"

#include "kernels/softmax/softmax_pack.h"

namespace segprior::softmax {
namespace {

bool stages_inputs(const Problem &p) { return p.storage != Storage::native || p.has_mask; }
bool stages_outputs(const Problem &p) { return p.storage != Storage::native; }
bool packs(const Problem &p) { return p.compact_saved && p.checkpoint_interval > 0; }
bool stages(const Problem &p) { return stages_inputs(p) || packs(p); }

// f with a value of the problem's element type.
template <class F>
size_t carve(const Problem &p, const F &f) {
  Arena arena;
  p.dtype == DType::f32 ? f(float{}, arena) : f(double{}, arena);
  return arena.used();
}

size_t full_saved_bytes(const Problem &p) {
  return carve(p, [&](auto t, Arena &arena) { carve_saved<decltype(t)>(p, arena); });
}

void *take_field(const Problem &p, Arena &arena, bool wanted) {
  const int64_t elements = wanted ? p.grid.batch * p.grid.classes * p.grid.voxels() : 0;
  return p.dtype == DType::f32 ? static_cast<void *>(arena.take<float>(elements))
                               : arena.take<double>(elements);
}

// Staged copies, at the front of the workspace; the backend's own part follows.
struct Fields {
  void *features, *u, *grad_u, *grad_features;
  void *saved;  // in full
  size_t bytes;

  static Fields forward(const Problem &p, void *workspace) {
    Arena arena(workspace);
    Fields f{};
    f.features = take_field(p, arena, stages_inputs(p));
    f.u = take_field(p, arena, stages_outputs(p));
    f.saved = arena.take<char>(packs(p) ? full_saved_bytes(p) : 0);
    f.bytes = arena.used();
    return f;
  }
  static Fields backward(const Problem &p, Mode mode, void *workspace) {
    Arena arena(workspace);
    Fields f{};
    f.features = take_field(p, arena, stages_inputs(p) && mode != Mode::last);
    f.u = take_field(p, arena, stages_outputs(p) && mode == Mode::last);
    f.grad_u = take_field(p, arena, stages_inputs(p));
    f.grad_features = take_field(p, arena, stages_outputs(p));
    f.saved = arena.take<char>(packs(p) && mode != Mode::last ? full_saved_bytes(p) : 0);
    f.bytes = arena.used();
    return f;
  }
};

void *rest(void *workspace, const Fields &f) { return static_cast<char *>(workspace) + f.bytes; }

}  // namespace

size_t staged_forward_workspace(const Backend &backend, const Problem &p, int threads) {
  return Fields::forward(p, nullptr).bytes + backend.forward_workspace(p, threads);
}

size_t staged_backward_workspace(const Backend &backend, const Problem &p, Mode mode, int threads) {
  return Fields::backward(p, mode, nullptr).bytes + backend.backward_workspace(p, mode, threads);
}

size_t staged_saved_bytes(const Problem &p) {
  if (!packs(p)) return full_saved_bytes(p);
  return carve(p, [&](auto t, Arena &arena) { carve_packed<decltype(t)>(p, arena); });
}

void staged_forward(const Backend &backend, const Problem &p, const Outputs &out, void *workspace,
                    void *saved, int threads, void *stream) {
  if (!stages(p)) return backend.forward(p, out, workspace, saved, threads, stream);
  const Fields fields = Fields::forward(p, workspace);
  Problem inner = p;
  Outputs results = out;
  if (fields.features) {
    backend.load(p, p.features, fields.features, threads, stream);
    inner.features = fields.features;
  }
  if (fields.u) results.u = fields.u;
  backend.forward(inner, results, rest(workspace, fields), fields.saved ? fields.saved : saved, threads,
                  stream);
  if (fields.u) backend.store(p, fields.u, out.u, threads, stream);
  if (fields.saved) backend.pack(p, fields.saved, saved, threads, stream);
}

void staged_backward(const Backend &backend, const Problem &p, Mode mode, const void *u, const void *grad_u,
                     const Grads &grads, void *workspace, const void *saved, int threads, void *stream) {
  if (!stages(p)) return backend.backward(p, mode, u, grad_u, grads, workspace, saved, threads, stream);
  const Fields fields = Fields::backward(p, mode, workspace);
  Problem inner = p;
  Grads results = grads;
  if (fields.saved) {
    backend.unpack(p, saved, fields.saved, threads, stream);
    saved = fields.saved;
  }
  if (fields.features) {
    backend.load(p, p.features, fields.features, threads, stream);
    inner.features = fields.features;
  }
  if (fields.u) {
    backend.load(p, u, fields.u, threads, stream);
    u = fields.u;
  }
  if (fields.grad_u) {
    backend.load(p, grad_u, fields.grad_u, threads, stream);
    grad_u = fields.grad_u;
  }
  const bool copies = fields.grad_features && grads.features;
  if (copies) results.features = fields.grad_features;
  if (copies && grads.accumulate) {
    // Backends add to the copy, in full precision. Masked voxels keep what they hold.
    Problem unmasked = p;
    unmasked.has_mask = false;
    backend.load(unmasked, grads.features, fields.grad_features, threads, stream);
  }
  backend.backward(inner, mode, u, grad_u, results, rest(workspace, fields), saved, threads, stream);
  if (copies) backend.store(p, fields.grad_features, grads.features, threads, stream);
}

}  // namespace segprior::softmax
