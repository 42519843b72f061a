// What tests ask of the fake runtime. Everything but the device's count and capability and sticky errors
// concerns the calling thread alone.
#pragma once

#include <cuda_runtime.h>

#include <string>
#include <vector>

namespace fakecuda {

// In which order blocks, and the ready threads of a block, run. `random`: fresh random priorities per block,
// drawn from the seed and the number of the launch. Default: environment variables SEGPRIOR_FAKECUDA_ORDER
// (forward, reverse, random) and SEGPRIOR_FAKECUDA_SEED, else forward.
enum class Order { forward, reverse, random };
void set_order(Order order, uint64_t seed = 0);
std::string order_text();  // "random, seed 7"

// Breaches of CUDA's rules in kernels: divergent or incomplete barriers, wrong masks, overruns of shared
// memory. The launch that commits one returns cudaErrorLaunchFailure, whose cudaGetErrorString is this text,
// and the text goes to stderr.
const std::string &error_text();
int error_count();
void expect_errors(bool expected);  // no copy on stderr

// Whether this program runs under ThreadSanitizer, and the number of its reports while one of these lives;
// they are dropped and do not fail the program.
bool detects_races();
class ExpectRaces {
 public:
  ExpectRaces();
  ~ExpectRaces();
  int count() const;
};

// Counts, not sites: launches done, bytes and objects alive in the whole process.
uint64_t launch_count();
size_t live_allocations();
size_t live_bytes();
size_t live_streams();

// While it lives, this thread may use no stream but `stream`, allocate nothing and wait for nothing. Breaches
// are recorded, and the calls work as usual.
class Forbid {
 public:
  explicit Forbid(cudaStream_t stream);
  ~Forbid();
  Forbid(const Forbid &) = delete;
  Forbid &operator=(const Forbid &) = delete;
  const std::vector<std::string> &violations() const { return violations_; }

 private:
  friend void violation(const std::string &);
  friend void uses_stream(const char *, cudaStream_t);
  cudaStream_t stream_;
  Forbid *outer_;
  std::vector<std::string> violations_;
};

// The n-th allocation (launch) from now fails once, n >= 1; 0 takes it back.
void fail_allocation(int n);
void fail_launch(int n);

// A device that has failed for good: every later call returns `error`; cudaSuccess heals it.
void set_sticky_error(cudaError_t error);

// 0: a machine with no GPU.
void set_device_count(int count);

// 8.0 unless set. Shared memory and occupancy follow; from 9.0 on there are thread-block clusters.
void set_compute_capability(int major, int minor);

// 3 unless set: a small number keeps small what kernels size by the device, such as a cooperative grid.
void set_multiprocessors(int count);

}  // namespace fakecuda
