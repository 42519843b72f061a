// All iterations of an image in one block: softmax_cuda_chip.h.
#include "kernels/softmax/softmax_cuda_chip.h"

#include <string>

#include "kernels/softmax/softmax_cuda_device.h"

namespace segprior::softmax::cuda {

namespace {

constexpr int kMostUnrolled = 8;  // classes of a voxel in registers
// One block has the SM for itself, if the image is large: as many threads as registers allow.
template <class T>
constexpr int chip_threads(int64_t classes) {
  if (sizeof(T) > sizeof(float)) return 512;
  return classes == 7 || classes == 8 ? 768 : 1024;
}
constexpr size_t kStaticBytes = 3 * 1024;  // at most, of static shared memory: that of the reductions

// Offsets in bytes of the arrays in shared memory; all of T but where said.
struct ChipLayout {
  size_t f, masses;  // double [I]
  size_t u, v, q;
  size_t features, normalisers, links;  // links: one byte per voxel
  size_t bytes;

  SEGPRIOR_HD ChipLayout(int64_t classes, int64_t voxels, int duals /* nd, or 0 */, bool accelerate,
                         bool features_inside, bool keeps_normalisers, size_t element) {
    size_t used = 0;
    const auto take = [&used](size_t count, size_t size) {
      const size_t at = used;
      used += (count * size + 15) / 16 * 16;
      return at;
    };
    f = take(classes, sizeof(double));
    masses = take(classes, sizeof(double));
    u = take(classes * voxels, element);
    v = take(classes * voxels * duals, element);
    q = take(accelerate ? classes * voxels * duals : 0, element);
    features = take(features_inside ? classes * voxels : 0, element);
    normalisers = take(keeps_normalisers ? 2 * voxels : 0, element);
    links = take(voxels, 1);
    bytes = used;
  }
};

constexpr unsigned kValid = 1u << 7;  // of links: not masked

// One image in shared memory. I = 0: any number of classes.
template <class T, int I>
struct ChipImage {
  const Geometry<T> &g;
  int classes, voxels, duals;
  T *u, *v, *q;
  const T *features, *global_features;  // the first one is null unless it is in shared memory
  const double *f;                      // null: no volume prior
  const unsigned char *links;           // bit c: a link ahead along component c; 4 + c: behind; kValid
  int stride[3];

  __device__ T feature(int k) const { return features ? features[k] : global_features[k]; }

  // The logit of class i without f, times `scale`.
  __device__ T logit(int i, int x, unsigned link, T scale) const {
    T value = feature(i * voxels + x);
    const T *p = v + i * duals * voxels + x;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      if (c >= duals) break;
      value -= g.inv_h[c] * (p[c * voxels] - (link >> (4 + c) & 1 ? p[c * voxels - stride[c]] : T(0)));
    }
    return f ? value * scale + static_cast<T>(f[i]) * scale : value * scale;
  }
};

// The softmax of a voxel: all classes in registers, or class by class.
template <class T, int I>
struct VoxelClasses {
  T value[I > 0 ? I : 1];
  Normaliser<T> n;

  __device__ VoxelClasses(const ChipImage<T, I> &image, int x, T scale) {
    const unsigned link = image.links[x];
    if constexpr (I == 0) {
      Online<T> online;
      for (int i = 0; i < image.classes; ++i) online.add(image.logit(i, x, link, scale));
      n = online.result();
      if (!(link & kValid)) n.inv_sum = 0;
    } else {
      T max = lowest(T()), sum = 0;
#pragma unroll
      for (int i = 0; i < I; ++i) {
        value[i] = image.logit(i, x, link, scale);
        max = value[i] > max ? value[i] : max;
      }
#pragma unroll
      for (int i = 0; i < I; ++i) sum += value[i] = exp2_of(value[i] - max);
      n = {max, link & kValid ? 1 / sum : T(0)};
    }
  }
  __device__ T at(const ChipImage<T, I> &image, int i, int x, T scale) const {
    return I == 0 ? softmax_value(image.logit(i, x, image.links[x], scale), n)
                  : value[I == 0 ? 0 : i] * n.inv_sum;
  }
};

// Calls body(i) for every class; unrolled where their number is known.
template <int I, class F>
__device__ inline void for_classes(int classes, const F &body) {
  if constexpr (I == 0) {
    for (int i = 0; i < classes; ++i) body(i);
  } else {
#pragma unroll
    for (int i = 0; i < I; ++i) body(i);
  }
}

// The dual step of all voxels of this thread; returns its part of the restart product. v_out, q_out: where
// `saved` keeps the new iterate; null: it does not.
template <class T, int I>
__device__ double chip_dual(const ChipImage<T, I> &image, const Inputs<T> &in, int64_t index, T lam, T tau,
                            T beta, T *v_out, T *q_out) {
  const Geometry<T> &g = image.g;
  double product = 0;
  for (int x = threadIdx.x; x < image.voxels; x += blockDim.x) {
    const unsigned link = image.links[x];
    const T bound = link & kValid ? bound_of(in, index, x, lam) : T(0);
    for_classes<I>(image.classes, [&](int i) {
      const T *u = image.u + i * image.voxels + x;
      const int base = i * image.duals * image.voxels + x;
      T y[3], square = 0;
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        if (c >= image.duals) break;
        y[c] = image.v[base + c * image.voxels];
        if (link >> c & 1) y[c] -= tau * g.inv_h[c] * (u[image.stride[c]] - u[0]);
        square += y[c] * y[c];
      }
      const T norm = sqrt(square), shrink = norm > bound ? bound / norm : T(1);
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        if (c >= image.duals) break;
        const int k = base + c * image.voxels;
        T v = y[c] * shrink;
        if (in.accelerate) {
          const T q = v, change = q - image.q[k];
          product += static_cast<double>(image.v[k] - q) * change;
          image.q[k] = q;
          if (q_out) q_out[k] = q;
          v += beta * change;
        }
        image.v[k] = v;
        if (v_out) v_out[k] = v;
      }
    });
  }
  return product;
}

// Masses of w into `masses`; the whole block. `normalisers`: scratch, only for I = 0.
template <class T, int I>
__device__ void chip_masses(const ChipImage<T, I> &image, T scale, Normaliser<T> *normalisers,
                            double *masses) {
  if constexpr (I > 0) {
    T mass[I] = {};
    for (int x = threadIdx.x; x < image.voxels; x += blockDim.x) {
      const VoxelClasses<T, I> w(image, x, scale);
#pragma unroll
      for (int i = 0; i < I; ++i) mass[i] += w.at(image, i, x, scale);
    }
    double sums[I];
#pragma unroll
    for (int i = 0; i < I; ++i) sums[i] = mass[i];
    block_reduce(sums, Sum());
    if (threadIdx.x != 0) return;
#pragma unroll
    for (int i = 0; i < I; ++i) masses[i] = sums[i];
  } else {
    for (int x = threadIdx.x; x < image.voxels; x += blockDim.x)
      normalisers[x] = VoxelClasses<T, I>(image, x, scale).n;
    constexpr int kGroup = 4;  // classes per block reduction
    for (int first = 0; first < image.classes; first += kGroup) {
      double sums[kGroup] = {};
      for (int x = threadIdx.x; x < image.voxels; x += blockDim.x)
        for (int k = 0; k < kGroup && first + k < image.classes; ++k)
          sums[k] += softmax_value(image.logit(first + k, x, image.links[x], scale), normalisers[x]);
      block_reduce(sums, Sum());
      if (threadIdx.x != 0) continue;
      for (int k = 0; k < kGroup && first + k < image.classes; ++k) masses[first + k] = sums[k];
    }
  }
}

// The new u; returns the largest change of this thread's voxels if it is wanted.
template <class T, int I>
__device__ double chip_softmax(const ChipImage<T, I> &image, T scale, bool wants_change) {
  T change = 0;
  for (int x = threadIdx.x; x < image.voxels; x += blockDim.x) {
    const VoxelClasses<T, I> u(image, x, scale);
    for_classes<I>(image.classes, [&](int i) {
      const T value = u.at(image, i, x, scale);
      T &at = image.u[i * image.voxels + x];
      if (wants_change) change = Max()(change, static_cast<T>(fabs(value - at)));
      at = value;
    });
  }
  return change;
}

template <class T, int I>
__global__ void __launch_bounds__(chip_threads<T>(I), 1)
    chip_kernel(Inputs<T> in, Chip<T> chip, bool features_inside) {
  SEGPRIOR_SHARED(Progress, progress, 1);
  const Geometry<T> &g = in.g;
  const int64_t index = blockIdx.x;
  const int classes = I > 0 ? I : g.classes, voxels = static_cast<int>(g.voxels), duals = in.tv ? g.nd : 0;
  const int scalars = classes * voxels, fields = scalars * duals;
  if (threadIdx.x == 0) progress[0] = chip.progress[index];
  __syncthreads();
  if (!progress[0].running) return;

  unsigned char *shared = dynamic_shared<unsigned char>();
  const ChipLayout layout(classes, voxels, duals, in.accelerate, features_inside, I == 0 && in.has_volume,
                          sizeof(T));
  const auto array = [&](size_t at) { return reinterpret_cast<T *>(shared + at); };
  double *f = reinterpret_cast<double *>(shared + layout.f);
  double *masses = reinterpret_cast<double *>(shared + layout.masses);
  unsigned char *links = shared + layout.links;
  T *const features = array(layout.features);
  const ChipImage<T, I> image{
      g,
      classes,
      voxels,
      duals,
      array(layout.u),
      array(layout.v),
      array(layout.q),
      features_inside ? features : nullptr,
      in.features + index * scalars,
      in.has_volume ? f : nullptr,
      links,
      {static_cast<int>(g.stride[0]), static_cast<int>(g.stride[1]), static_cast<int>(g.stride[2])}};

  // Where iterate k belongs in global memory, and whether `saved` keeps it.
  const auto kept = [&](int k) {
    const int interval = chip.iterates.interval;
    return in.tv && interval > 0 && (k == chip.iterates.total || k % interval == 0);
  };
  const auto place = [&](int k, int part) { return chip.iterates.at(k, part) + index * fields; };

  const uint8_t *const mask = chip.mask ? chip.mask + index * chip.mask_stride : nullptr;
  for (int x = threadIdx.x; x < voxels; x += blockDim.x) {
    const Site site = site_of(g, x);
    const auto valid = [&](int64_t at) { return !mask || mask[at] != 0; };
    unsigned link = valid(x) ? kValid : 0;
    for (int c = 0; c < g.nd && link; ++c) {
      if (!(site.last >> c & 1) && valid(x + g.stride[c])) link |= 1u << c;
      if (!(site.first >> c & 1) && valid(x - g.stride[c])) link |= 1u << (4 + c);
    }
    links[x] = static_cast<unsigned char>(link);
  }
  for (int k = threadIdx.x; k < fields; k += blockDim.x) {
    const T start = place(0, 0)[k];
    image.v[k] = start;
    if (in.accelerate) image.q[k] = start;
  }
  for (int k = threadIdx.x; features_inside && k < scalars; k += blockDim.x)
    features[k] = image.global_features[k];
  for (int i = threadIdx.x; in.has_volume && i < classes; i += blockDim.x)
    f[i] = chip.f.at(0)[index * classes + i];
  __syncthreads();

  const Coefficients &c = *in.coefficients;
  const T lam = static_cast<T>(c.params.lam), tau = static_cast<T>(c.params.tau);
  const T scale = static_cast<T>(c.scale);
  chip_softmax(image, static_cast<T>(c.init_scale), false);
  __syncthreads();

  for (int t = 0; progress[0].running; ++t) {
    const bool check = (chip.check_interval > 0 && is_check(t, in.iterations, chip.check_interval)) ||
                       (chip.report && t + 1 == in.iterations);
    double product = 0;
    if (in.tv) {
      const bool keep = kept(t + 1);
      product =
          chip_dual(image, in, index, lam, tau, static_cast<T>(progress[0].beta),
                    keep ? place(t + 1, 0) : nullptr, keep && in.accelerate ? place(t + 1, 1) : nullptr);
      __syncthreads();
    }
    if (in.has_volume) {
      chip_masses(image, scale, reinterpret_cast<Normaliser<T> *>(shared + layout.normalisers), masses);
      __syncthreads();
      for (int i = threadIdx.x; i < classes; i += blockDim.x) {
        const int64_t k = index * classes + i;
        const double mass_log = log_mass(masses[i], sizeof(T) == sizeof(float));
        if (chip.log_mass) chip.log_mass[t * g.batch * classes + k] = mass_log;
        f[i] = volume_step(f[i], mass_log, lower_of(in, k), upper_of(in, k), c.params.eps).dual;
        chip.f.at(t + 1)[k] = f[i];
      }
      __syncthreads();
    }
    double change = chip_softmax(image, scale, check);
    if (in.accelerate) product = block_sum(product);
    if (check) change = block_max(change);
    if (threadIdx.x == 0) {
      advance(progress[0], t, in.iterations, in.accelerate, product > 0, check, change, chip.tolerance);
      if (chip.momentum && t + 1 < in.iterations) chip.momentum[(t + 1) * g.batch + index] = progress[0].beta;
    }
    __syncthreads();
  }

  const int last = progress[0].iterations;
  if (threadIdx.x == 0) chip.progress[index] = progress[0];
  for (int k = threadIdx.x; chip.u && k < scalars; k += blockDim.x) chip.u[index * scalars + k] = image.u[k];
  if (kept(last)) return;
  for (int k = threadIdx.x; k < fields; k += blockDim.x) place(last, 0)[k] = image.v[k];
}

template <class T, int I = 2>
void dispatch_chip(const Grid &grid, const Inputs<T> &in, const Chip<T> &chip, const ChipPlan &plan,
                   cudaStream_t stream) {
  constexpr bool kAny = I > kMostUnrolled;
  if (kAny || grid.classes == I)
    launch("chip", chip_kernel < T, kAny ? 0 : I >, dim3(static_cast<unsigned>(grid.batch)),
           dim3(plan.threads), plan.bytes - kStaticBytes, stream, in, chip, plan.features_inside);
  else if constexpr (!kAny)
    dispatch_chip<T, I + 1>(grid, in, chip, plan, stream);
}

}  // namespace

size_t shared_memory_per_block() {
  int device = 0, bytes = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "cudaDeviceGetAttribute");
  return static_cast<size_t>(bytes);
}

// The first thing of a problem that the kernel does not know.
const char *not_served(const Problem &p) {
  return p.td.on                             ? "opts.td = 1"
         : p.star.count > 0                  ? "opts.star_count > 0"
         : !p.tv && p.volume == Volume::none ? "a problem without TV and volume prior"
                                             : nullptr;
}

ChipPlan chip_plan(const Problem &p, size_t shared_memory) {
  const Grid &g = p.grid;
  ChipPlan plan{};
  const bool keeps_normalisers = p.volume != Volume::none && (g.classes < 2 || g.classes > kMostUnrolled);
  const size_t element = p.dtype == DType::f32 ? sizeof(float) : sizeof(double);
  for (bool features_inside : {true, false}) {
    plan.features_inside = features_inside;
    plan.bytes = ChipLayout(g.classes, g.voxels(), p.tv ? g.nd : 0, p.accelerate, features_inside,
                            keeps_normalisers, element)
                     .bytes +
                 kStaticBytes;
    if (plan.bytes <= shared_memory) break;
  }
  const int64_t threads = ceil_div(g.voxels(), 32) * 32;  // whole warps
  const int most = p.dtype == DType::f32 ? chip_threads<float>(g.classes) : chip_threads<double>(g.classes);
  plan.threads = static_cast<int>(threads < most ? threads : most);
  return plan;
}

bool takes_chip(const Problem &p) {
  const bool demanded = p.path == Path::on_chip;
  if (p.path == Path::streaming || (!demanded && p.iterations == 0)) return false;
  if (const char *what = not_served(p)) {
    if (!demanded) return false;
    throw Error(SEGPRIOR_ERROR_NOT_SUPPORTED,
                std::string("opts.path = SEGPRIOR_PATH_ON_CHIP does not serve ") + what);
  }
  const size_t available = shared_memory_per_block(), needed = chip_plan(p, available).bytes;
  if (needed > available) {
    if (!demanded) return false;
    throw Error(SEGPRIOR_ERROR_NOT_SUPPORTED,
                "opts.path = SEGPRIOR_PATH_ON_CHIP needs " + std::to_string(needed) +
                    " bytes of shared memory per image; this device has " + std::to_string(available));
  }
  // By arithmetic, not measured: softmax.md. The batch may not matter: an image's bits depend on it alone.
  constexpr int64_t kSmall = 8192;
  const bool fused = fused_partials(p) > 0 && !p.has_mask;
  return demanded || !fused || p.grid.classes * p.grid.voxels() <= kSmall;
}

template <class T>
void chip_iterations(const Grid &grid, const Inputs<T> &in, const Chip<T> &chip, const ChipPlan &plan,
                     cudaStream_t stream) {
  dispatch_chip(grid, in, chip, plan, stream);
}

template void chip_iterations(const Grid &, const Inputs<float> &, const Chip<float> &, const ChipPlan &,
                              cudaStream_t);
template void chip_iterations(const Grid &, const Inputs<double> &, const Chip<double> &, const ChipPlan &,
                              cudaStream_t);

}  // namespace segprior::softmax::cuda
