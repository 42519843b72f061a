// The trees of CUDA's connected components: a union-find over voxels. Tiles of 32 words of 32 voxels find
// their components in shared memory, where runs of a word, not voxels, are the nodes; then the borders of
// tiles are joined. Bytes per voxel, of a map of one byte: tiles 1 + 4; the borders a few tenths of the map
// and the parents. Concurrent walks through the trees are atomics throughout; whichever thread is first, a
// tree's root is its smallest voxel, so the result is always the same.
#include "kernels/metrics/metrics_cuda.h"

namespace segprior::metrics::cuda {
namespace {

constexpr int kWords = 32;          // of a tile
constexpr int kTile = kWords * 32;  // voxels of a tile

// ---- Trees ---------------------------------------------------------------------------------------------

// Puts every node on the way under the one after the next: trees that join at the same time chain up, and
// are walked often. A node leaves only a parent that hangs together with its new one without it: no join is
// lost.
__device__ int32_t root_of(int32_t *parent, int32_t node) {
  for (int32_t above = load(parent + node); above != node;) {
    const int32_t next = load(parent + above);
    if (next != above) atomicMin(&parent[node], next);
    node = above;
    above = next;
  }
  return node;
}

__device__ void unite(int32_t *parent, int32_t a, int32_t b) {
  for (;;) {
    a = root_of(parent, a);
    b = root_of(parent, b);
    if (a == b) return;
    const int32_t upper = a < b ? a : b, lower = a < b ? b : a;
    const int32_t before = atomicMin(&parent[lower], upper);
    if (before == lower) return;
    // Another thread was first: its tree, which `lower` has left if `upper` is smaller, belongs to this one,
    // too.
    a = before;
    b = upper;
  }
}

// ---- Tiles ---------------------------------------------------------------------------------------------

// A tile is 1024 voxels of a line, 32 x 32 of a plane, or 4 x 8 x 32 of a volume; its words lie along the
// last axis.
template <int Axes>
struct Tiles {
  int64_t depth, height, width;  // of the image
  int64_t across, down;          // tiles along the last and the last but one axis
  int64_t count;                 // of an image

  static constexpr int kDepth = Axes == 3 ? 4 : 1, kHeight = Axes == 3 ? 8 : Axes == 2 ? 32 : 1;
  static constexpr int kWidth = kTile / (kDepth * kHeight);

  explicit Tiles(const Components &c)
      : depth(c.extent[0]),
        height(c.extent[1]),
        width(c.extent[2]),
        across(ceil_div(width, kWidth)),
        down(ceil_div(height, kHeight)),
        count(across * down * ceil_div(depth, kDepth)) {}
};

// A voxel: where it is in its tile and its image.
template <int Axes>
struct Site {
  using T = Tiles<Axes>;
  int lz, ly, lx;
  int64_t z, y, x;

  __device__ Site(const T &tiles, int64_t tile, int word, int lane) {
    const int64_t row = Axes == 1 ? 0 : quotient(tile, tiles.across);
    const int64_t slice = Axes < 3 ? 0 : quotient(row, tiles.down);
    lz = word / T::kHeight % T::kDepth;
    ly = Axes == 1 ? 0 : word % T::kHeight;
    lx = Axes == 1 ? word * 32 + lane : lane;
    z = slice * T::kDepth + lz;
    y = (row - slice * tiles.down) * T::kHeight + ly;
    x = (tile - row * tiles.across) * T::kWidth + lx;
  }
  __device__ bool in(const T &tiles) const { return z < tiles.depth && y < tiles.height && x < tiles.width; }
  __device__ int64_t index(const T &tiles) const { return (z * tiles.height + y) * tiles.width + x; }
};

// The image of a block, and the values of its voxels.
struct Image {
  const Components &c;
  int64_t first;  // voxel of the map

  __device__ int64_t value(int64_t v) const { return label_at(c.map, c.type, first + v); }
  __device__ bool inside(int64_t v, int64_t value) const {
    return value != c.background && (!c.mask || c.mask[(c.mask_shared ? 0 : first) + v]);
  }
  __device__ bool alike(int64_t v, int64_t w) const { return !c.by_value || value(v) == value(w); }
};

// The node of the run that holds bit k of a word: its first voxel.
__device__ int32_t run_of(unsigned starts, int word, int k) {
  return word * 32 + 31 - __clz(starts & upto(k));
}

struct Words {
  unsigned *inside, *starts;  // [kWords]
  int32_t *parent;            // [kTile], of the voxels where runs start
};

// Joins the runs of `word` and `earlier`, words of rows that touch, that meet first at this lane's bit: where
// either begins. step: voxels from the earlier row to this one.
__device__ void join_words(const Image &image, const Words &w, int word, int earlier, int lane, int64_t v,
                           int64_t step) {
  const unsigned c = w.inside[word], s = w.starts[word], c0 = w.inside[earlier], s0 = w.starts[earlier];
  const auto bit = [&](unsigned bits) { return bits >> lane & 1; };
  const auto join = [&](int at, int at0) {
    if (image.alike(v - lane + at, v - lane + at0 - step))
      unite(w.parent, run_of(s, word, at), run_of(s0, earlier, at0));
  };
  if (bit((s & c0) | (s0 & c))) join(lane, lane);
  if (!image.c.full) return;
  // A run begins after one of the other row, which has ended, or is of another value than what follows.
  if (bit(s & c0 << 1 & (~c0 | s0))) join(lane, lane - 1);
  if (bit(s0 & c << 1 & (~c | s))) join(lane - 1, lane);
}

template <int Axes>
__global__ void __launch_bounds__(kThreads)
    tile_kernel(Components c, Tiles<Axes> tiles, int64_t jobs, int32_t *parents) {
  using T = Tiles<Axes>;
  SEGPRIOR_SHARED(unsigned, inside, kWords);
  SEGPRIOR_SHARED(unsigned, starts, kWords);
  SEGPRIOR_SHARED(int32_t, parent, kTile);
  const Words words{inside, starts, parent};
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = kThreads / kWarp;
  for (int64_t job = blockIdx.x; job < jobs; job += gridDim.x) {
    const int64_t b = quotient(job, tiles.count), tile = job - b * tiles.count;
    const Image image{c, b * c.voxels()};
    for (int word = warp; word < kWords; word += warps) {
      const Site<Axes> site(tiles, tile, word, lane);
      const int64_t v = site.index(tiles);
      const bool exists = site.in(tiles);
      const int64_t value = exists ? image.value(v) : 0;
      const int64_t left = __shfl_up_sync(kAllLanes, static_cast<long long>(value), 1);
      const unsigned here = __ballot_sync(kAllLanes, exists && image.inside(v, value));
      const unsigned changes = __ballot_sync(kAllLanes, c.by_value && lane > 0 && value != left);
      const unsigned begins = here & (~(here << 1) | changes);
      if (lane == 0) {
        inside[word] = here;
        starts[word] = begins;
      }
      parent[word * 32 + lane] = word * 32 + lane;
    }
    __syncthreads();
    for (int word = warp; word < kWords; word += warps) {
      const Site<Axes> site(tiles, tile, word, lane);
      const int64_t v = site.index(tiles);
      if (Axes == 1) {  // the words of a line follow one another
        if (lane == 0 && word > 0 && inside[word] & 1 && inside[word - 1] >> 31 && image.alike(v, v - 1))
          unite(parent, word * 32, run_of(starts[word - 1], word - 1, 31));
        continue;
      }
      const int64_t row = tiles.width, slice = tiles.height * row;
      if (site.ly > 0) join_words(image, words, word, word - 1, lane, v, row);
      if (Axes < 3 || site.lz == 0) continue;
      const int above = word - T::kHeight;
      join_words(image, words, word, above, lane, v, slice);
      if (!c.full) continue;
      if (site.ly > 0) join_words(image, words, word, above - 1, lane, v, slice + row);
      if (site.ly + 1 < T::kHeight) join_words(image, words, word, above + 1, lane, v, slice - row);
    }
    __syncthreads();
    for (int word = warp; word < kWords; word += warps) {
      const Site<Axes> site(tiles, tile, word, lane);
      if (!site.in(tiles)) continue;
      int32_t result = kOutside;
      if (inside[word] >> lane & 1) {
        int32_t root = run_of(starts[word], word, lane);
        while (parent[root] != root) root = parent[root];  // all joins are done
        result = static_cast<int32_t>(Site<Axes>(tiles, tile, root / 32, root % 32).index(tiles));
      }
      parents[image.first + site.index(tiles)] = result;
    }
    __syncthreads();
  }
}

// ---- Borders of tiles ----------------------------------------------------------------------------------

template <int Axes>
class Border {
 public:
  using T = Tiles<Axes>;

  __device__ Border(const Image &image, const T &tiles, const Site<Axes> &site, int32_t *parent)
      : image_(image), tiles_(tiles), site_(site), parent_(parent), v_(site.index(tiles)) {
    value_ = image.c.by_value ? image.value(v_) : 0;
  }

  __device__ void join() const {
    if (load(parent_ + v_) == kOutside) return;
    if (site_.lx == 0 && like(0, 0, -1) && !above_met()) unite_with(0, 0, -1);
    if (Axes > 1) join_row(0, -1);
    if (Axes < 3) return;
    join_row(-1, 0);
    if (!image_.c.full) return;
    join_row(-1, -1);
    join_row(-1, 1);
  }

 private:
  // Whether an earlier row of the same tile holds this voxel and its left neighbour, in the next tile,
  // together.
  __device__ bool above_met() const {
    return (site_.ly > 0 && like(0, -1, 0) && like(0, -1, -1)) ||
           (site_.lz > 0 && like(-1, 0, 0) && like(-1, 0, -1));
  }
  // The neighbours in another row. What the row itself holds together needs no more than one of them.
  __device__ void join_row(int dz, int dy) const {
    const bool other = site_.ly + dy < 0 || site_.ly + dy >= T::kHeight || site_.lz + dz < 0;
    if (like(dz, dy, 0)) {
      // The voxels to the left have met, if they are in the same runs.
      if (other && !(like(0, 0, -1) && like(dz, dy, -1))) unite_with(dz, dy, 0);
      return;
    }
    if (!image_.c.full) return;
    if ((other || site_.lx == 0) && like(dz, dy, -1)) unite_with(dz, dy, -1);
    if ((other || site_.lx == T::kWidth - 1) && like(dz, dy, 1)) unite_with(dz, dy, 1);
  }

  __device__ int64_t offset(int dz, int dy, int dx) const {
    return (dz * tiles_.height + dy) * tiles_.width + dx;
  }
  // Whether there is such a neighbour, and voxel and neighbour are to be in one component.
  __device__ bool like(int dz, int dy, int dx) const {
    if (site_.z + dz < 0 || site_.y + dy < 0 || site_.y + dy >= tiles_.height || site_.x + dx < 0 ||
        site_.x + dx >= tiles_.width)
      return false;
    const int64_t n = v_ + offset(dz, dy, dx);
    return load(parent_ + n) != kOutside && (!image_.c.by_value || image_.value(n) == value_);
  }
  __device__ void unite_with(int dz, int dy, int dx) const {
    unite(parent_, static_cast<int32_t>(v_), static_cast<int32_t>(v_ + offset(dz, dy, dx)));
  }

  const Image &image_;
  const T &tiles_;
  const Site<Axes> &site_;
  int32_t *parent_;  // of the image
  int64_t v_, value_;
};

template <int Axes>
__global__ void __launch_bounds__(kThreads)
    border_kernel(Components c, Tiles<Axes> tiles, int64_t jobs, int32_t *parents) {
  using T = Tiles<Axes>;
  for (int64_t job = blockIdx.x; job < jobs; job += gridDim.x) {
    const int64_t b = quotient(job, tiles.count), tile = job - b * tiles.count;
    const Image image{c, b * c.voxels()};
    for (int l = threadIdx.x; l < kTile; l += kThreads) {
      const Site<Axes> site(tiles, tile, l / 32, l % 32);
      const bool first = site.lx == 0 || (Axes > 1 && site.ly == 0) || (Axes > 2 && site.lz == 0);
      const bool last =
          c.full && ((Axes > 1 && site.lx == T::kWidth - 1) || (Axes > 2 && site.ly == T::kHeight - 1));
      if ((first || last) && site.in(tiles)) Border<Axes>(image, tiles, site, parents + image.first).join();
    }
  }
}

template <int Axes>
void grow(const Components &c, int32_t *parents, cudaStream_t stream) {
  const Tiles<Axes> tiles(c);
  const int64_t jobs = c.batch * tiles.count;
  launch("components_tiles", tile_kernel<Axes>, grid_of(jobs), dim3(kThreads), 0, stream, c, tiles, jobs,
         parents);
  if (tiles.count > 1)
    launch("components_borders", border_kernel<Axes>, grid_of(jobs), dim3(kThreads), 0, stream, c, tiles,
           jobs, parents);
}

}  // namespace

void grow_trees(const Components &c, int32_t *parents, cudaStream_t stream) {
  if (c.extent[0] > 1)
    grow<3>(c, parents, stream);
  else
    c.extent[1] > 1 ? grow<2>(c, parents, stream) : grow<1>(c, parents, stream);
}

}  // namespace segprior::metrics::cuda
