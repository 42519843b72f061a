// Entropic softmax on CUDA, the mixed path: workspace and host loop of forward. As in softmax_cuda.cu the
// loop only queues kernels.
//
// Kernels an iteration: threshold dynamics nd (a Gaussian) or 1, TV 1, stars 2, volume 2, softmax 1, end 1.
#include "kernels/softmax/softmax_cuda_chip.h"
#include "kernels/softmax/softmax_cuda_mixed.h"

namespace segprior::softmax::cuda {

namespace {

template <class T>
struct ForwardScratch {
  Mixed<T> mixed;
  Progress *progress;
  unsigned *tickets;
  double *partials, *scanned, *restart, *residual, *volume_dual;
  int64_t restart_count;
  T *duals, *stars, *force;

  ForwardScratch(const Problem &p, Arena &arena) : mixed(carve_mixed<T>(p, arena)) {
    const Grid &g = p.grid;
    const int64_t chunks = mixed.in.g.chunks;
    restart_count = (p.star.count + (p.tv ? 1 : 0)) * chunks;
    progress = arena.take<Progress>(g.batch);
    tickets = arena.take<unsigned>(g.batch);
    scanned = arena.take<double>(g.batch * kScanned * chunks);
    partials = arena.take<double>(p.volume == Volume::none ? 0 : g.batch * g.classes * chunks);
    restart = arena.take<double>(p.accelerate ? g.batch * restart_count : 0);
    residual = arena.take<double>(g.batch * chunks);
    const bool history = p.volume == Volume::none || p.checkpoint_interval > 0;
    volume_dual = arena.take<double>(history ? 0 : 2 * g.batch * g.classes);
    const int parts = p.checkpoint_interval == 1 ? 0 : p.accelerate ? 2 : 1;
    duals = arena.take<T>(p.tv ? parts * dual_size(g) : 0);
    stars = arena.take<T>(parts * p.star_size());
    force = arena.take<T>(p.keeps_u() ? g.batch * g.classes * g.voxels() : 0);
  }
};

template <class T>
class Forward {
 public:
  Forward(const Problem &p, const Outputs &out, void *workspace, void *saved_memory, cudaStream_t stream)
      : p_(p),
        out_(out),
        stream_(stream),
        arena_(workspace),
        saved_arena_(saved_memory),
        scratch_(p, arena_),
        saved_(carve_saved<T>(p, saved_arena_)),
        m_(scratch_.mixed) {
    const int n = p.checkpoint_interval, total = p.iterations;
    duals_ = {saved_.slots, scratch_.duals, dual_size(p.grid), parts_of(p), n, total, 1};
    stars_ = {saved_.star_slots,
              scratch_.stars,
              p.star_size(),
              p.star.count == 0 ? 0 : p.accelerate ? 2 : 1,
              n,
              total,
              1};
    u_ = {saved_.u_slots,
          static_cast<T *>(out.u),
          p.grid.batch * p.grid.classes * p.grid.voxels(),
          1,
          p.keeps_u() ? n : 0,
          total,
          1};
    f_ = {n > 0 ? saved_.volume_dual : scratch_.volume_dual, n > 0 ? total + 1 : 2, per_class()};
  }

  void run() {
    resolve_parameters<T>(p_, m_.coefficients, stream_);
    MixedCall<T>::prepare(m_, stream_);
    begin();
    if (!p_.keeps_u() && takes_chip(p_))
      run_on_chip();
    else
      for (int t = 0; t < p_.iterations; ++t) iterate(t);
    MixedCall<T>::finish(
        m_,
        {{static_cast<T *>(out_.u), static_cast<T *>(out_.tv_dual), static_cast<T *>(out_.volume_dual),
          out_.info, saved_.iterations, saved_.status, duals_, f_, scratch_.progress},
         static_cast<T *>(out_.star_dual),
         u_,
         stars_},
        stream_);
  }

 private:
  int64_t per_class() const { return p_.grid.batch * p_.grid.classes; }
  double *momentum_of_step(int t) const {
    return saved_.momentum && t < p_.iterations ? saved_.momentum + t * p_.grid.batch : nullptr;
  }

  // u_0 = S((o - div q_0 - div(g_0 s) + f_0) / eps_0).
  void begin() {
    const Start<T> start{static_cast<const T *>(p_.init_tv),
                         static_cast<const T *>(p_.init_volume),
                         duals_.dual(0),
                         f_.at(0),
                         nullptr,
                         scratch_.progress,
                         momentum_of_step(0),
                         scratch_.tickets,
                         p_.grid.inv_spacing_sum()};
    const Gate gate{scratch_.progress, nullptr, nullptr, 0};
    MixedCall<T>::start(
        m_, {start, static_cast<const T *>(p_.star.init), stars_.dual(0), scratch_.force, scratch_.scanned},
        stream_);
    if (m_.star.count > 0)
      MixedStars<T>::force(m_, {gate, true, stars_.dual(0).v, nullptr, nullptr, 0, scratch_.force}, stream_);
    MixedSteps<T>::softmax(
        m_, {gate, true, true, scratch_.force, duals_.dual(0).v, f_.at(0), u_.at(0, 0), nullptr, nullptr},
        stream_);
  }

  // TV and volumes with a mask.
  void run_on_chip() {
    const Chip<T> chip{duals_,
                       f_,
                       saved_.log_mass,
                       saved_.momentum,
                       scratch_.progress,
                       m_.mask,
                       m_.mask_stride,
                       static_cast<T *>(out_.u),
                       p_.tolerance > 0 ? p_.check_interval : 0,
                       p_.tolerance > 0 || out_.info,
                       p_.tolerance};
    chip_iterations<T>(p_.grid, m_.in, chip, chip_plan(p_, shared_memory_per_block()), stream_);
  }

  void iterate(int t) {
    const Gate gate{scratch_.progress, nullptr, nullptr, t};
    double *residual = takes_residual(p_, out_.info, t) ? scratch_.residual : nullptr;
    const Step<T> base{gate,
                       t,
                       duals_.dual(t),
                       duals_.dual(t + 1),
                       f_.at(t),
                       f_.at(t + 1),
                       saved_.log_mass ? saved_.log_mass + t * per_class() : nullptr,
                       scratch_.partials};
    const MixedStep<T> step{base,           u_.at(t, 0),     stars_.dual(t), stars_.dual(t + 1),
                            scratch_.force, scratch_.restart};
    MixedSteps<T>::forces(m_, step, stream_);
    if (m_.in.has_volume) MixedSteps<T>::volume(m_, step, stream_);
    MixedSteps<T>::softmax(
        m_, {gate, false, false, scratch_.force, base.to.v, base.f_next, u_.at(t + 1, 0), step.u, residual},
        stream_);
    advance_images(m_.in,
                   {scratch_.progress, momentum_of_step(t + 1), scratch_.restart, residual,
                    scratch_.restart_count, m_.in.g.chunks, t, p_.iterations, p_.accelerate, p_.tolerance},
                   stream_);
  }

  const Problem &p_;
  const Outputs &out_;
  const cudaStream_t stream_;
  Arena arena_, saved_arena_;
  const ForwardScratch<T> scratch_;
  const Saved<T> saved_;
  const Mixed<T> &m_;
  Iterates<T> duals_, stars_, u_;
  VolumeDuals f_;
};

}  // namespace

size_t mixed_forward_workspace(const Problem &p) {
  return with_type(p, [&](auto *type) {
    Arena arena;
    ForwardScratch<std::remove_pointer_t<decltype(type)>>(p, arena);
    return arena.used();
  });
}

void mixed_forward(const Problem &p, const Outputs &out, void *workspace, void *saved, cudaStream_t stream) {
  with_type(p, [&](auto *type) {
    Forward<std::remove_pointer_t<decltype(type)>>(p, out, workspace, saved, stream).run();
  });
}

}  // namespace segprior::softmax::cuda
