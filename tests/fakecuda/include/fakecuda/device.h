// What a kernel sees: built-in variables, barriers, warp operations, atomics, fences and intrinsics.
#pragma once

#include <type_traits>

#include "fakecuda/types.h"

// Set by the scheduler on every switch. Thread-local variables, not macros: kernels may use members of these
// names. __constinit spares the initialisation check of extern thread_local variables.
extern __constinit thread_local uint3 threadIdx;
extern __constinit thread_local uint3 blockIdx;
extern __constinit thread_local dim3 blockDim;
extern __constinit thread_local dim3 gridDim;
constexpr int warpSize = 32;

namespace fakecuda {

// Where a barrier stands in the source; threads that meet must come from the same place.
struct Site {
  const char *what, *file;
  int line;
};

enum class Vote { none, any, all, count };

int block_barrier(Vote vote, bool predicate, Site site);
void warp_barrier(unsigned mask, Site site);
unsigned warp_ballot(unsigned mask, bool predicate, Site site);
uint64_t warp_shuffle(unsigned mask, uint64_t value, int source_lane, Site site);
void grid_barrier(Site site);
void cluster_barrier(Site site);
unsigned cluster_rank();
unsigned cluster_blocks();
const void *cluster_shared(const void *mine, int rank);
int lane();
void fence();
bool atomic_publishes(
    void *address);  // whether a fence has gone before; remembers the address for the next fence

void *static_shared(const void *site, const char *name, size_t bytes, size_t alignment);
void *dynamic_shared();

template <class T>
T shuffle(unsigned mask, T value, int source, Site site) {
  static_assert(std::is_arithmetic<T>::value && sizeof(T) <= 8, "not a type of __shfl_sync");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = warp_shuffle(mask, bits, source, site);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

inline int segment(int lane, int width) { return lane & ~(width - 1); }

// Every read-modify-write. Relaxed as on the device; after a __threadfence it also publishes.
template <class T, class F>
T atomic_update(T *address, F next) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  static_assert(sizeof(T) == sizeof(Bits), "atomics have 4 or 8 bytes");
  Bits *target = reinterpret_cast<Bits *>(address);
  const bool publish = atomic_publishes(address);
  for (Bits seen = __atomic_load_n(target, __ATOMIC_RELAXED);;) {
    T old;
    std::memcpy(&old, &seen, sizeof(T));
    const T replacement = next(old);
    Bits wanted;
    std::memcpy(&wanted, &replacement, sizeof(T));
    const bool done =
        publish
            ? __atomic_compare_exchange_n(target, &seen, wanted, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED)
            : __atomic_compare_exchange_n(target, &seen, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    if (done) return old;
  }
}

template <class To, class From>
To bit_copy(From from) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

template <class T>
struct Same {
  using type = T;
};
template <class T>
using same = typename Same<T>::type;  // a parameter that takes no part in deduction

}  // namespace fakecuda

// Barriers and warp operations. The trailing parameters are never given: they hold the caller's place.

inline void __syncthreads(const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
  fakecuda::block_barrier(fakecuda::Vote::none, false, {"__syncthreads", file, line});
}
inline int __syncthreads_or(int p, const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
  return fakecuda::block_barrier(fakecuda::Vote::any, p != 0, {"__syncthreads_or", file, line});
}
inline int __syncthreads_and(int p, const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
  return fakecuda::block_barrier(fakecuda::Vote::all, p != 0, {"__syncthreads_and", file, line});
}
inline int __syncthreads_count(int p, const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
  return fakecuda::block_barrier(fakecuda::Vote::count, p != 0, {"__syncthreads_count", file, line});
}
inline void __syncwarp(unsigned mask = 0xffffffffu, const char *file = __builtin_FILE(),
                       int line = __builtin_LINE()) {
  fakecuda::warp_barrier(mask, {"__syncwarp", file, line});
}
inline unsigned __ballot_sync(unsigned mask, int p, const char *file = __builtin_FILE(),
                              int line = __builtin_LINE()) {
  return fakecuda::warp_ballot(mask, p != 0, {"__ballot_sync", file, line});
}
inline int __any_sync(unsigned mask, int p, const char *file = __builtin_FILE(),
                      int line = __builtin_LINE()) {
  return fakecuda::warp_ballot(mask, p != 0, {"__any_sync", file, line}) != 0;
}
inline int __all_sync(unsigned mask, int p, const char *file = __builtin_FILE(),
                      int line = __builtin_LINE()) {
  return fakecuda::warp_ballot(mask, p != 0, {"__all_sync", file, line}) == mask;
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, const char *file = __builtin_FILE(),
              int line = __builtin_LINE()) {
  const int from = fakecuda::segment(fakecuda::lane(), width) + (source & (width - 1));
  return fakecuda::shuffle(mask, value, from, {"__shfl_sync", file, line});
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, const char *file = __builtin_FILE(),
                 int line = __builtin_LINE()) {
  const int lane = fakecuda::lane(), from = lane - static_cast<int>(delta);
  return fakecuda::shuffle(mask, value, from < fakecuda::segment(lane, width) ? lane : from,
                           {"__shfl_up_sync", file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
  const int lane = fakecuda::lane(), from = lane + static_cast<int>(delta);
  return fakecuda::shuffle(mask, value, from >= fakecuda::segment(lane, width) + width ? lane : from,
                           {"__shfl_down_sync", file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, const char *file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
  const int lane = fakecuda::lane(), from = lane ^ bits;
  return fakecuda::shuffle(mask, value, from >= fakecuda::segment(lane, width) + width ? lane : from,
                           {"__shfl_xor_sync", file, line});
}

// Fences and atomics. A fence makes the thread's next atomic a release, and every atomic before the fence an
// acquire: just what the pattern "write, fence, atomic ... atomic, fence, read" needs, and no more, so that a
// forgotten fence is a race.

inline void __threadfence() { fakecuda::fence(); }
inline void __threadfence_system() { fakecuda::fence(); }
inline void __threadfence_block() { fakecuda::fence(); }

template <class T>
T atomicAdd(T *address, fakecuda::same<T> value) {
  return fakecuda::atomic_update(address, [=](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicSub(T *address, fakecuda::same<T> value) {
  return fakecuda::atomic_update(address, [=](T old) { return static_cast<T>(old - value); });
}
template <class T>
T atomicMax(T *address, fakecuda::same<T> value) {
  return fakecuda::atomic_update(address, [=](T old) { return old > value ? old : value; });
}
template <class T>
T atomicMin(T *address, fakecuda::same<T> value) {
  return fakecuda::atomic_update(address, [=](T old) { return old < value ? old : value; });
}
template <class T>
T atomicOr(T *address, fakecuda::same<T> value) {
  return fakecuda::atomic_update(address, [=](T old) { return old | value; });
}
template <class T>
T atomicAnd(T *address, fakecuda::same<T> value) {
  return fakecuda::atomic_update(address, [=](T old) { return old & value; });
}
template <class T>
T atomicExch(T *address, fakecuda::same<T> value) {
  return fakecuda::atomic_update(address, [=](T) { return value; });
}
template <class T>
T atomicCAS(T *address, fakecuda::same<T> compare, fakecuda::same<T> value) {
  return fakecuda::atomic_update(address, [=](T old) { return old == compare ? value : old; });
}
inline unsigned atomicInc(unsigned *address, unsigned limit) {
  return fakecuda::atomic_update(address, [=](unsigned old) { return old >= limit ? 0u : old + 1u; });
}

// Memory access with cache hints.

template <class T>
T __ldg(const T *p) {
  return *p;
}
template <class T>
T __ldcg(const T *p) {
  return *p;
}
template <class T>
T __ldcs(const T *p) {
  return *p;
}
template <class T>
T __ldca(const T *p) {
  return *p;
}
template <class T>
void __stcs(T *p, fakecuda::same<T> value) {
  *p = value;
}
template <class T>
void __stcg(T *p, fakecuda::same<T> value) {
  *p = value;
}
template <class T>
void __stwt(T *p, fakecuda::same<T> value) {
  *p = value;
}

// Arithmetic.

inline int min(int a, int b) { return a < b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline long min(long a, long b) { return a < b ? a : b; }
inline unsigned long min(unsigned long a, unsigned long b) { return a < b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline unsigned long long min(unsigned long long a, unsigned long long b) { return a < b ? a : b; }
inline float min(float a, float b) { return fminf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long max(long a, long b) { return a > b ? a : b; }
inline unsigned long max(unsigned long a, unsigned long b) { return a > b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline unsigned long long max(unsigned long long a, unsigned long long b) { return a > b ? a : b; }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }

inline int __float_as_int(float x) { return fakecuda::bit_copy<int>(x); }
inline unsigned __float_as_uint(float x) { return fakecuda::bit_copy<unsigned>(x); }
inline float __int_as_float(int x) { return fakecuda::bit_copy<float>(x); }
inline float __uint_as_float(unsigned x) { return fakecuda::bit_copy<float>(x); }
inline long long __double_as_longlong(double x) { return fakecuda::bit_copy<long long>(x); }
inline double __longlong_as_double(long long x) { return fakecuda::bit_copy<double>(x); }
inline int __float2int_rn(float x) { return static_cast<int>(rintf(x)); }

inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}

inline long long clock64() {
  static thread_local long long ticks = 0;
  return ++ticks;
}
