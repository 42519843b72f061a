// Iteration counts of SoftCut on the weights of an image's edges, against those that the theory of its
// preconditioners promises (kernels/softcut/softcut.md): they do not depend on the size of the image, and
// with multigrid hardly on the weights.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "tests/cases/softcut_check.h"

using namespace segprior;
using namespace segprior::test;
using ref::Array;
using ref::softcut::Problem;
using Solver = SoftcutCase::Solver;

namespace {

double hash01(int64_t i) {
  uint32_t h = static_cast<uint32_t>(i) * 2654435761u;
  h ^= h >> 16;
  h *= 2246822519u;
  h ^= h >> 13;
  h *= 3266489917u;
  h ^= h >> 16;
  return h * 0x1p-32;
}

// Blobs of two grey values under noise. Weights spread over four decades below the largest, where the image
// changes; the scores are the image under more noise.
Problem image_edges(std::vector<int64_t> spatial, double largest) {
  Problem p;
  p.spatial = std::move(spatial);
  const bool volume = p.nd() == 3;
  const int64_t depth = volume ? p.spatial[0] : 1, rows = p.spatial[p.nd() - 2],
                columns = p.spatial[p.nd() - 1];
  Array image;
  for (int64_t z = 0; z < depth; ++z)
    for (int64_t y = 0; y < rows; ++y)
      for (int64_t x = 0; x < columns; ++x) {
        double wave = std::sin(0.145 * x + 0.3) * std::cos(0.83 * 0.145 * y + 0.1);
        if (volume) wave *= std::cos(0.71 * 0.145 * z + 0.2);
        image.push_back((wave > 0.1) + 0.5 * (hash01(static_cast<int64_t>(image.size())) - 0.5));
      }
  for (size_t k = 0; k < image.size(); ++k)
    p.scores.push_back(image[k] + 0.2 * (hash01(static_cast<int64_t>(k) + 1000000) - 0.5));
  for (int f = 0; f < p.nd(); ++f) p.weights.of[f].resize(p.edge_count(f));
  for (const ref::softcut::Edge &e : ref::softcut::edges_of(p)) {
    const double step = image[e.a] - image[e.b];
    p.weights.of[e.family][e.entry] = largest * std::max(std::exp(-9.2 * step * step), 1e-4);
  }
  return p;
}

int iterations(Device &device, const Problem &p, Solver solver, bool float32 = false) {
  SoftcutSettings settings;
  settings.dtype = float32 ? SEGPRIOR_FLOAT32 : SEGPRIOR_FLOAT64;
  settings.opts.solver = static_cast<int32_t>(solver);
  settings.opts.tolerance = 1e-4;
  settings.opts.max_iterations = 3000;
  SoftcutCall call(device, p, settings);
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
  const segprior_info info = call.infos()[0];
  CHECK_MESSAGE((info.status == SEGPRIOR_CONVERGED || (float32 && info.status == SEGPRIOR_PRECISION_LIMIT)),
                "status ", info.status);
  return info.iterations;
}

// The fake device would take hours.
std::vector<segprior_device> fast_devices() {
#if defined(FAKECUDA)
  return {{SEGPRIOR_CPU, 0}};
#else
  return all_devices();
#endif
}

}  // namespace

TEST_CASE("softcut: iteration counts on image edges") {
  const struct {
    double largest;
    int cg, jacobi, multigrid;
  } table[] = {
      {1, 10, 11, 4}, {10, 35, 34, 7}, {100, 117, 109, 11}, {1000, 403, 368, 26}, {1e4, 1149, 1171, 44}};
  for (segprior_device which : fast_devices()) {
    Device device(which);
    for (const auto &row : table) {
      INFO(name_of(which) << ", weights up to " << row.largest);
      const Problem p = image_edges({256, 256}, row.largest);
      const auto near = [](const std::string &what, int got, int want) {
        MESSAGE(what, ": ", got, " iterations");
        CHECK_MESSAGE(std::abs(got - want) <= std::max(1, want / 5), what, ": ", got,
                      " iterations, expected ", want);
      };
      near("CG", iterations(device, p, Solver::cg), row.cg);
      near("Jacobi", iterations(device, p, Solver::jacobi), row.jacobi);
      near("multigrid", iterations(device, p, Solver::multigrid), row.multigrid);
      near("multigrid, float32", iterations(device, p, Solver::multigrid, true), row.multigrid);
    }
  }
}

TEST_CASE("softcut: multigrid's iteration counts do not grow with the image") {
  for (segprior_device which : fast_devices()) {
    Device device(which);
    for (double largest : {100.0, 1e4}) {
      INFO(name_of(which) << ", weights up to " << largest);
      const auto count = [&](std::vector<int64_t> spatial) {
        return iterations(device, image_edges(std::move(spatial), largest), Solver::multigrid);
      };
      const int small = count({192, 192}), large = count({768, 768});
      MESSAGE("192^2: ", small, ", 768^2: ", large);
      CHECK(large <= small + std::max(2, small / 4));
      for (const std::vector<int64_t> &spatial : {std::vector<int64_t>{1024, 1024}, {257, 255}, {14, 1024}})
        CHECK(count(spatial) <= 60);
      // Here the border leaves of some blobs slivers two lines wide, which no coarse point represents and
      // which Jacobi sweeps cannot smooth along their length.
      const int slivers = count({512, 512});
      MESSAGE("512^2: ", slivers);
      CHECK(slivers <= 120);
    }
  }
}

TEST_CASE("softcut: iteration counts in 3-D") {
  for (segprior_device which : fast_devices()) {
    Device device(which);
    for (double largest : {1.0, 100.0, 1e4}) {
      const Problem p = image_edges({40, 48, 44}, largest);
      const int count = iterations(device, p, Solver::multigrid);
      MESSAGE("weights up to ", largest, ": ", count);
      CHECK(count <= (largest <= 1 ? 8 : largest <= 100 ? 50 : 90));
    }
  }
}
