// Before the first solve: is each matrix valid, which solver does it get, and the hierarchy if that is
// multigrid.
#include "kernels/softcut/softcut_cpu_multigrid.h"
#include "kernels/softcut/softcut_cpu_solve.h"

namespace segprior::softcut {
namespace {

bool may_use(const Problem &p, Solver solver) {
  if (p.solver == Solver::automatic) return solver == Solver::chebyshev || solver == Solver::multigrid;
  return p.solver == solver;
}

constexpr int64_t kCacheBytes = 1 << 20, kLastCacheBytes = 16 << 20;

// Chebyshev's steps grow with the root of 1 / dominance; multigrid's iterations hardly grow, but cost 8 steps
// in 2-D and 20 in 3-D. By dimensions, where both take the same time (measured: softcut.md).
constexpr double kLeastDominance[4] = {0, 0.006, 0.006, 0.0012};

Solver choose(const Problem &p, double dominance) {
  if (p.solver != Solver::automatic) return p.solver;
  return dominance >= kLeastDominance[p.grid.nd] ? Solver::chebyshev : Solver::multigrid;
}

// Right-hand sides that advance together load the matrix once, which only pays where vectors come from memory
// anyway. Those whose vectors fit in cache are solved one after another, or as many together as the cache
// holds.
template <class T>
int64_t group_size(const Problem &p) {
  const Grid &g = p.grid;
  const int64_t bytes = 4 * g.voxels() * static_cast<int64_t>(sizeof(T));  // r, p, q, x
  if (p.solver == Solver::direct || bytes > kLastCacheBytes) return g.rhs();
  return std::max<int64_t>(1, std::min(g.rhs(), kCacheBytes / bytes));
}

}  // namespace

Saved Saved::carve(const Problem &p, Arena &arena) {
  Saved s;
  s.status = arena.take<int32_t>(p.grid.systems());
  s.matrices = arena.take<MatrixInfo>(p.grid.matrices());
  s.hierarchy_stride = 0;
  if (may_use(p, Solver::multigrid))
    s.hierarchy_stride =
        (hierarchy_bytes(p.grid) + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
  s.hierarchies = arena.take<char>(static_cast<int64_t>(s.hierarchy_stride), p.grid.matrices());
  return s;
}

template <class T>
Room<T> Room<T>::carve(const Problem &p, bool together, int64_t fields, int threads, Arena &arena) {
  const Grid &g = p.grid;
  const bool chebyshev = may_use(p, Solver::chebyshev), multigrid = may_use(p, Solver::multigrid);
  const bool jacobi = may_use(p, Solver::jacobi), cg = jacobi || multigrid || may_use(p, Solver::cg);
  const int teams = team_count(threads, g.matrices()), size = team_size(threads, g.matrices());
  const int64_t slots = together ? g.matrices() : teams;
  Room room;
  room.zeros = Units(g).zeros();
  room.voxels = g.voxels();
  room.rhs = g.rhs();
  room.group = together ? room.rhs : group_size<T>(p);
  room.units = Units(g).count;
  room.fields = fields;
  room.cycle_bytes = 0;
  if (multigrid)
    room.cycle_bytes = (cycle_scratch_bytes(g, room.group, size) + Arena::kAlignment - 1) /
                       Arena::kAlignment * Arena::kAlignment;
  const int64_t field = room.group * room.voxels;
  Vectors<T> &v = room.vectors;
  v.r = arena.take<T>(cg ? field : 0, slots);
  v.p = arena.take<T>(cg || chebyshev ? field : 0, slots);
  v.q = arena.take<T>(cg ? field : 0, slots);
  v.inverse_diagonal = arena.take<T>(jacobi || chebyshev ? room.voxels : 0, slots);
  v.systems = arena.take<System>(room.group, slots);
  v.active = arena.take<bool>(room.group, slots);
  Scratch<T> &s = room.scratch;
  s.zeros = arena.take<T>(room.zeros, teams);
  for (double *&sum : s.partial) sum = arena.take<double>(room.group * room.units, teams);
  s.dots = arena.take<double>(room.group, teams);
  s.inspections = arena.take<Inspection>(room.units, teams);
  s.cycle = arena.take<char>(static_cast<int64_t>(room.cycle_bytes), teams);
  s.fields = arena.take<T>(fields * room.rhs * room.voxels, teams);
  return room;
}

template <class T>
Vectors<T> Room<T>::slot(int64_t slot) const {
  const auto of = [&](T *array, int64_t size) { return array ? array + slot * size : nullptr; };
  const Vectors<T> &v = vectors;
  return {of(v.r, group * voxels),        of(v.p, group * voxels),  of(v.q, group * voxels),
          of(v.inverse_diagonal, voxels), v.systems + slot * group, v.active + slot * group};
}

template <class T>
Scratch<T> Room<T>::team(int64_t team) const {
  Scratch<T> s = scratch;
  s.zeros += team * zeros;
  for (double *&sum : s.partial) sum += team * group * units;
  s.dots += team * group;
  s.inspections += team * units;
  if (s.cycle) s.cycle += team * cycle_bytes;
  if (s.fields) s.fields += team * fields * rhs * voxels;
  return s;
}

template <class T>
void prepare(const Problem &p, const Room<T> &room, const Saved &saved, int threads) {
  const Units units(p.grid);
  for_images(threads, p.grid.matrices(), [&](const Team &team, int team_index, int64_t m) {
    const Scratch<T> scratch = room.team(team_index);
    const Spans<T> spans(p.grid, units, matrix_of<T>(p, m), scratch.zeros);
    for (int64_t u = team.begin(units.count); u < team.end(units.count); ++u)
      scratch.inspections[u] = spans.inspect(row_kernels<T>(), u, nullptr);
    team.barrier();
    if (team.rank != 0) return;
    Inspection all = scratch.inspections[0];
    for (int64_t u = 1; u < units.count; ++u) all = merge(all, scratch.inspections[u]);
    saved.matrices[m] = {all, choose(p, all.dominance)};
    for (int64_t r = 0; r < room.rhs; ++r)
      saved.status[m * room.rhs + r] = all.valid ? SEGPRIOR_CONVERGED : SEGPRIOR_INVALID_PARAMETER;
  });
  if (p.stop.batch) {  // one solver, so that an iteration is the same for all
    double dominance = 1;
    for (int64_t m = 0; m < p.grid.matrices(); ++m)
      if (saved.matrices[m].inspection.valid)
        dominance = std::min(dominance, saved.matrices[m].inspection.dominance);
    for (int64_t m = 0; m < p.grid.matrices(); ++m) saved.matrices[m].solver = choose(p, dominance);
  }
  if (!saved.hierarchies) return;
  for_images(threads, p.grid.matrices(), [&](const Team &team, int team_index, int64_t m) {
    if (saved.matrices[m].inspection.valid && saved.matrices[m].solver == Solver::multigrid)
      build_hierarchy<T>(team, p.grid, matrix_of<T>(p, m), saved.hierarchies + m * saved.hierarchy_stride,
                         room.team(team_index).cycle);
  });
}

template struct Room<float>;
template struct Room<double>;
template void prepare<float>(const Problem &, const Room<float> &, const Saved &, int);
template void prepare<double>(const Problem &, const Room<double> &, const Saved &, int);

}  // namespace segprior::softcut
