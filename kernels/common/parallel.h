// CPU threads (OpenMP). Work on a batch is split over images when there are enough of them, else over bands
// of slices inside one image at a time. Results must not depend on the split: sums are kept per slice and
// added in slice order.
#pragma once

#include <omp.h>

#include <atomic>
#include <cstdint>
#include <thread>

namespace segprior {

// Our own barrier because OpenMP's spins for milliseconds: with more threads than free cores (another job on
// the machine) an iteration with a few barriers then took 100 times as long. This one gives its core away
// after a moment.
class Barrier {
 public:
  void wait(int threads) {
    const unsigned turn = turn_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
      arrived_.store(0, std::memory_order_relaxed);
      turn_.store(turn + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; turn_.load(std::memory_order_acquire) == turn; ++spins)
      if (spins >= kSpins) std::this_thread::yield();
  }

 private:
  static constexpr int kSpins = 4000;  // about a microsecond, the usual wait

  std::atomic<int> arrived_{0};
  std::atomic<unsigned> turn_{0};
};

// The threads that work on one image together.
struct Team {
  int rank, size;
  Barrier *meeting;

  void barrier() const {
    if (size > 1) meeting->wait(size);
  }
  // This thread's share [begin, end) of n things.
  int64_t begin(int64_t n) const { return n * rank / size; }
  int64_t end(int64_t n) const { return n * (rank + 1) / size; }
};

// How many teams work at once: each needs its own scratch.
inline int team_count(int threads, int64_t images) { return images >= threads ? threads : 1; }
inline int team_size(int threads, int64_t images) { return images >= threads ? 1 : threads; }

// work(team, team_index, image) for every image; all threads of a team call it. A team may be smaller than
// asked for (nested parallel regions), never larger.
template <class Work>
void for_images(int threads, int64_t images, const Work &work) {
  if (images >= threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t image = 0; image < images; ++image) work(Team{0, 1, nullptr}, omp_get_thread_num(), image);
    return;
  }
  Barrier barrier;
#pragma omp parallel num_threads(threads)
  {
    const Team team{omp_get_thread_num(), omp_get_num_threads(), &barrier};
    for (int64_t image = 0; image < images; ++image) {
      work(team, 0, image);
      team.barrier();
    }
  }
}

}  // namespace segprior
