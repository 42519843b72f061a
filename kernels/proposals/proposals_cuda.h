// What the CUDA kernels of the proposals work on.
#pragma once

#include <cstdint>

#include "kernels/common/arena.h"
#include "kernels/proposals/proposals.h"
#include "kernels/proposals/proposals_math.h"

namespace segprior::proposals::cuda {

constexpr unsigned kBlock = 256;
static_assert(kMaxClasses <= kBlock, "a thread per class");

// Voxels that one block adds up: enough chunks to fill a device with one image, few enough to add up quickly.
// A matter of J alone, so that an image's sums do not depend on the batch.
inline int64_t chunk_of(int64_t voxels) {
  int64_t chunk = 2 * kBlock;
  while (chunk < 64 * kBlock && chunk * 256 < voxels) chunk *= 2;
  return chunk;
}

// By value into every kernel.
struct Args {
  Problem p;
  int64_t chunk, chunks;  // voxels of one; number per image

  State *state;              // [B]
  double *dual;              // [B][I]
  Multipliers *multipliers;  // [B][I], GRADIENT only
  double *sums;              // [B][sums_of(I)], of the last pass
  double *parts;             // [B][sums_of(I)][chunks]
  unsigned *tickets;         // [B], of the chunks done in a pass; 0 between passes
  unsigned *running;         // [3]: images that go on after pass t, at t % 3 (persistent kernel)

  Args(const Problem &problem, Arena &arena)
      : p(problem),
        chunk(chunk_of(p.voxels)),
        chunks((p.voxels + chunk - 1) / chunk),
        state(arena.take<State>(p.batch)),
        dual(arena.take<double>(p.batch, p.classes)),
        multipliers(arena.take<Multipliers>(p.method == Method::gradient ? p.batch : 0, p.classes)),
        sums(arena.take<double>(p.batch, sums_of(p.classes))),
        parts(arena.take<double>(p.batch * sums_of(p.classes), chunks)),
        tickets(arena.take<unsigned>(p.batch)),
        running(arena.take<unsigned>(3)) {}
};

}  // namespace segprior::proposals::cuda
