// Forward with the fused threshold dynamics iteration: the host loop, and what is computed once a call.
#include <algorithm>

#include "kernels/common/cuda.h"
#include "kernels/softmax/softmax_cuda_chip.h"
#include "kernels/softmax/softmax_cuda_device.h"
#include "kernels/softmax/softmax_cuda_mixed.h"
#include "kernels/softmax/softmax_cuda_td_fused.h"

namespace segprior::softmax::cuda {

namespace {

// Where the iterates are: u itself, or (with a volume prior, and at the start) o - r, of which f makes u.
template <class T>
struct TdIterates {
  const T *features;
  Iterates<T> fields;
  VolumeDuals f;

  SEGPRIOR_HD bool is_logits(int64_t k) const { return k == 0 || f.values; }
  SEGPRIOR_HD const T *field(int64_t k) const { return k == 0 ? features : fields.at(k, 0); }
};

// u_k of one voxel, class by class.
template <class T>
class VoxelSoftmax {
 public:
  __device__ VoxelSoftmax(const Inputs<T> &in, const TdIterates<T> &iterates, const Work &work, int64_t k)
      : z_(logits_at(in, iterates, work.image, k)),
        site_{work.x, 0, 0, 0},
        is_logits_(iterates.is_logits(k)) {
    if (is_logits_) n_ = normaliser(z_, site_);
  }
  __device__ T operator()(int i) const {
    return is_logits_ ? softmax_value(z_.at(i, site_), n_) : z_.features[i * z_.g.voxels + site_.x];
  }

 private:
  static __device__ Logits<T> logits_at(const Inputs<T> &in, const TdIterates<T> &iterates, int64_t image,
                                        int64_t k) {
    const double *f = iterates.f.at(k);
    const double scale = k == 0 ? in.coefficients->init_scale : in.coefficients->scale;
    return {in.g, iterates.field(k) + image * in.g.classes * in.g.voxels, nullptr,
            f ? f + image * in.g.classes : nullptr, static_cast<T>(scale)};
  }

  const Logits<T> z_;
  const Site site_;
  const bool is_logits_;
  Normaliser<T> n_{};
};

// Partial maxima [B, chunks] of |u_t+1 - u_t|.
template <class T>
__global__ void __launch_bounds__(kThreads)
    td_residual_kernel(Inputs<T> in, TdIterates<T> iterates, Gate gate, double *out) {
  const Work work = work_of(in.g);
  if (!active(gate, work.image)) return;
  double max = 0;
  if (work.x < in.g.voxels) {
    const VoxelSoftmax<T> before(in, iterates, work, gate.t), after(in, iterates, work, gate.t + 1);
    for (int i = 0; i < in.g.classes; ++i) max = Max()(max, static_cast<double>(fabs(after(i) - before(i))));
  }
  max = block_max(max);
  if (threadIdx.x == 0) out[work.image * in.g.chunks + work.chunk] = max;
}

// The final u of every image, into `u` and the last slot; NaN for a failed image.
template <class T>
__global__ void __launch_bounds__(kThreads)
    td_output_kernel(Inputs<T> in, TdIterates<T> iterates, const Progress *progress, T *u, T *last_slot) {
  const Work work = work_of(in.g);
  if (work.x >= in.g.voxels) return;
  const bool ok = !failed(progress[work.image].status);
  T *const to = u + work.image * in.g.classes * in.g.voxels + work.x;
  for (int i = 0; !ok && i < in.g.classes; ++i) to[i * in.g.voxels] = static_cast<T>(NAN);
  if (!ok) return;
  const VoxelSoftmax<T> final_u(in, iterates, work, progress[work.image].iterations);
  for (int i = 0; i < in.g.classes; ++i) {
    to[i * in.g.voxels] = final_u(i);
    if (last_slot) last_slot[(work.image * in.g.classes + i) * in.g.voxels + work.x] = final_u(i);
  }
}

template <class T>
struct Scratch {
  Mixed<T> mixed;
  Progress *progress;
  unsigned *tickets;
  double *scanned, *partials, *residual, *volume_dual;
  T *iterates;  // two

  Scratch(const Problem &p, const TdPlan &plan, Arena &arena) : mixed(carve_mixed<T>(p, arena, false)) {
    const Grid &g = p.grid;
    const int64_t chunks = mixed.in.g.chunks, per_class = g.batch * g.classes;
    const bool volume = p.volume != Volume::none;
    progress = arena.take<Progress>(g.batch);
    tickets = arena.take<unsigned>(g.batch);
    scanned = arena.take<double>(g.batch * kScanned * chunks);
    partials = arena.take<double>(volume ? per_class * plan.tiles() : 0);
    residual = arena.take<double>(g.batch * chunks);
    volume_dual = arena.take<double>(volume && p.checkpoint_interval == 0 ? 2 * per_class : 0);
    iterates = arena.take<T>(2 * per_class * g.voxels());
  }
};

template <class T>
class TdForward {
 public:
  TdForward(const Problem &p, const Outputs &out, void *workspace, void *saved_memory, cudaStream_t stream)
      : p_(p),
        out_(out),
        stream_(stream),
        plan_(td_plan(p, shared_memory_per_block())),
        arena_(workspace),
        saved_arena_(saved_memory),
        scratch_(p, plan_, arena_),
        saved_(carve_saved<T>(p, saved_arena_)),
        in_(scratch_.mixed.in) {
    const bool history = p.checkpoint_interval > 0, volume = p.volume != Volume::none;
    iterates_.features = in_.features;
    iterates_.fields = {volume ? nullptr : saved_.u_slots,
                        scratch_.iterates,
                        p.grid.batch * p.grid.classes * p.grid.voxels(),
                        1,
                        volume ? 0 : p.checkpoint_interval,
                        p.iterations};
    iterates_.f = {history ? saved_.volume_dual : scratch_.volume_dual, history ? p.iterations + 1 : 2,
                   p.grid.batch * p.grid.classes};
  }

  void run() {
    const Mixed<T> &m = scratch_.mixed;
    resolve_parameters<T>(p_, m.coefficients, stream_);
    MixedCall<T>::prepare(m, stream_);
    MixedCall<T>::start(m,
                        {{nullptr,
                          static_cast<const T *>(p_.init_volume),
                          {},
                          iterates_.f.at(0),
                          nullptr,
                          scratch_.progress,
                          nullptr,
                          scratch_.tickets,
                          p_.grid.inv_spacing_sum()},
                         nullptr,
                         {},
                         nullptr,
                         scratch_.scanned},
                        stream_);
    for (int t = 0; t < p_.iterations; ++t) iterate(t);
    report<T>(in_,
              {static_cast<T *>(out_.u),
               nullptr,
               static_cast<T *>(out_.volume_dual),
               out_.info,
               saved_.iterations,
               saved_.status,
               {},
               iterates_.f,
               scratch_.progress},
              stream_);
    launch("td_output", td_output_kernel<T>, dim3(in_.g.batch * in_.g.chunks), dim3(kThreads), 0, stream_,
           in_, iterates_, scratch_.progress, static_cast<T *>(out_.u),
           saved_.u_slots ? saved_.u_slot(saved_.checkpoints) : nullptr);
  }

 private:
  void iterate(int t) {
    const Gate gate{scratch_.progress, nullptr, nullptr, t};
    const bool check = takes_residual(p_, out_.info, t);
    const int interval = p_.checkpoint_interval;
    // Without a volume prior every iterate but the first is u, written where it belongs.
    const bool save_u = interval > 0 && t % interval == 0 && iterates_.is_logits(t);
    const TdStep<T> step{gate,
                         t,
                         iterates_.is_logits(t),
                         iterates_.field(t),
                         iterates_.fields.at(t + 1, 0),
                         save_u ? saved_.u_slot(t / interval) : nullptr,
                         scratch_.mixed.td.axis_taps,
                         {p_.td.size[0], p_.td.size[1], p_.td.size[2]},
                         iterates_.f.at(t),
                         iterates_.f.at(t + 1),
                         saved_.log_mass ? saved_.log_mass + t * p_.grid.batch * p_.grid.classes : nullptr,
                         scratch_.partials};
    const Finish end{
        scratch_.progress, nullptr, nullptr,     check ? scratch_.residual : nullptr, 0, in_.g.chunks, t,
        p_.iterations,     false,   p_.tolerance};
    td_fused_step<T>(in_, step, end, plan_, !check, scratch_.tickets, stream_);
    if (!check) return;
    launch("td_residual", td_residual_kernel<T>, dim3(in_.g.batch * in_.g.chunks), dim3(kThreads), 0, stream_,
           in_, iterates_, gate, scratch_.residual);
    advance_images<T>(in_, end, stream_);
  }

  const Problem &p_;
  const Outputs &out_;
  const cudaStream_t stream_;
  const TdPlan plan_;
  Arena arena_, saved_arena_;
  const Scratch<T> scratch_;
  const Saved<T> saved_;
  const Inputs<T> &in_;
  TdIterates<T> iterates_{};
};

}  // namespace

bool td_fused_serves(const Problem &p) {
  return p.td.on && td_plan(p, shared_memory_per_block()).tiles() > 0;
}

size_t td_fused_workspace(const Problem &p) {
  return with_type(p, [&](auto *type) {
    Arena arena;
    Scratch<std::remove_pointer_t<decltype(type)>>(p, td_plan(p, shared_memory_per_block()), arena);
    return arena.used();
  });
}

void td_fused_forward(const Problem &p, const Outputs &out, void *workspace, void *saved,
                      cudaStream_t stream) {
  with_type(p, [&](auto *type) {
    TdForward<std::remove_pointer_t<decltype(type)>>(p, out, workspace, saved, stream).run();
  });
}

}  // namespace segprior::softmax::cuda
