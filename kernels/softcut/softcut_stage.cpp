// 16-bit edges and their gradients at the borders of a call: 6 bytes per edge each way, once a call.
// Everything else of such a call is float32 and goes through untouched.
#include "kernels/softcut/softcut_stage.h"

namespace segprior::softcut {
namespace {

bool stages(const Problem &p) { return p.storage != Storage::native; }

// Families of float32 edges, one after another.
struct Copies {
  float *edges[kFamilies];
};

// At the front of the workspace; the backend's own part follows.
struct Staged {
  Copies weights, cotangents, grads;
  size_t bytes;

  Staged(const Problem &p, Pass pass, void *workspace) {
    Arena arena(workspace);
    const auto take = [&](Copies &copies, bool needed) {
      for (int f = 0; f < kFamilies; ++f)
        copies.edges[f] = needed ? arena.take<float>(p.grid.edge_count(f), p.grid.matrices()) : nullptr;
    };
    take(weights, stages(p));
    take(cotangents, stages(p) && pass == Pass::double_backward);
    take(grads, stages(p) && pass != Pass::forward);
    bytes = arena.used();
  }
  void *rest(void *workspace) const { return static_cast<char *>(workspace) + bytes; }
};

// A call with a CPU's threads or a device's stream.
struct Conversion {
  const Backend &backend;
  const Problem &problem;
  int threads;
  void *stream;

  int64_t count(int family) const { return problem.grid.edge_count(family) * problem.grid.matrices(); }
  // The arrays that are there, `from` becoming the copies.
  void widen(const void *(&from)[kFamilies], const Copies &to) const {
    for (int f = 0; f < kFamilies; ++f) {
      if (!from[f] || count(f) == 0) continue;
      backend.widen(problem.storage, from[f], to.edges[f], count(f), threads, stream);
      from[f] = to.edges[f];
    }
  }
  // Where a backend writes gradients: what is there already, if it is to add to it.
  void open(void *(&out)[kFamilies], bool accumulate, const Copies &copies) const {
    for (int f = 0; f < kFamilies; ++f) {
      if (!out[f] || count(f) == 0) continue;
      if (accumulate) backend.widen(problem.storage, out[f], copies.edges[f], count(f), threads, stream);
      out[f] = copies.edges[f];
    }
  }
  void close(const Copies &copies, void *const (&out)[kFamilies]) const {
    for (int f = 0; f < kFamilies; ++f)
      if (out[f] && count(f) > 0)
        backend.narrow(problem.storage, copies.edges[f], out[f], count(f), threads, stream);
  }
};

// The problem with float32 edges.
Problem widened(const Conversion &convert, const Staged &staged) {
  Problem inner = convert.problem;
  inner.storage = Storage::native;
  convert.widen(inner.edges, staged.weights);
  return inner;
}

}  // namespace

size_t staged_workspace(const Backend &backend, const Problem &p, Pass pass, int threads) {
  Problem inner = p;
  inner.storage = Storage::native;
  return Staged(p, pass, nullptr).bytes + backend.workspace(inner, pass, threads);
}

void staged_forward(const Backend &backend, const Problem &p, const Outputs &out, void *workspace,
                    void *saved, int threads, void *stream) {
  if (!stages(p)) return backend.forward(p, out, workspace, saved, threads, stream);
  const Staged staged(p, Pass::forward, workspace);
  const Problem inner = widened({backend, p, threads, stream}, staged);
  backend.forward(inner, out, staged.rest(workspace), saved, threads, stream);
}

void staged_backward(const Backend &backend, const Problem &p, const void *x, const void *grad_x,
                     const Grads &grads, void *workspace, const void *saved, int threads, void *stream) {
  if (!stages(p)) return backend.backward(p, x, grad_x, grads, workspace, saved, threads, stream);
  const Staged staged(p, Pass::backward, workspace);
  const Conversion convert{backend, p, threads, stream};
  const Problem inner = widened(convert, staged);
  Grads results = grads;
  convert.open(results.edges, grads.accumulate, staged.grads);
  backend.backward(inner, x, grad_x, results, staged.rest(workspace), saved, threads, stream);
  convert.close(staged.grads, grads.edges);
}

void staged_double_backward(const Backend &backend, const Problem &p, const void *x, const void *grad_scores,
                            const Cotangents &cotangents, const SecondGrads &grads, void *workspace,
                            const void *saved, int threads, void *stream) {
  if (!stages(p))
    return backend.double_backward(p, x, grad_scores, cotangents, grads, workspace, saved, threads, stream);
  const Staged staged(p, Pass::double_backward, workspace);
  const Conversion convert{backend, p, threads, stream};
  const Problem inner = widened(convert, staged);
  Cotangents in = cotangents;
  convert.widen(in.edges, staged.cotangents);
  SecondGrads results = grads;
  convert.open(results.edges, grads.accumulate, staged.grads);
  backend.double_backward(inner, x, grad_scores, in, results, staged.rest(workspace), saved, threads, stream);
  convert.close(staged.grads, grads.edges);
}

}  // namespace segprior::softcut
