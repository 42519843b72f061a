#include "tests/support/golden.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>

namespace segprior::test {

ref::Array read_npy(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (bytes.size() < 10 || bytes.compare(0, 7, "\x93NUMPY\x01") != 0)
    throw std::runtime_error(path + ": missing, or not a version 1 .npy file");
  const size_t header = static_cast<unsigned char>(bytes[8]) + 256u * static_cast<unsigned char>(bytes[9]);
  const std::string text = bytes.substr(10, header);
  if (text.find("'<f8'") == std::string::npos || text.find("'fortran_order': False") == std::string::npos)
    throw std::runtime_error(path + ": not a C-ordered float64 array");
  if ((bytes.size() - 10 - header) % sizeof(double) != 0) throw std::runtime_error(path + ": truncated");
  ref::Array values((bytes.size() - 10 - header) / sizeof(double));
  std::memcpy(values.data(), bytes.data() + 10 + header, values.size() * sizeof(double));
  return values;
}

bool Golden::has(const std::string &array) const {
  return std::ifstream(folder + "/" + array + ".npy").good();
}

ref::Array Golden::array(const std::string &array) const { return read_npy(folder + "/" + array + ".npy"); }

ref::Array Golden::stars(const std::string &array_name, int64_t size) const {
  ref::Array all(problem.batch * problem.star.count() * size);
  for (int64_t m = 0; m < problem.star.count(); ++m) {
    const ref::Array one = array(array_name + "_" + std::to_string(problem.star.classes[m]));
    for (int64_t b = 0; b < problem.batch; ++b)
      for (int64_t k = 0; k < size; ++k) all[(b * problem.star.count() + m) * size + k] = one[b * size + k];
  }
  return all;
}

Golden read_golden(const std::string &name) {
  Golden g;
  g.name = name;
  g.folder = std::string(SEGPRIOR_GOLDEN_DIR) + "/" + name;
  std::ifstream file(g.folder + "/case.txt");
  if (!file) throw std::runtime_error(g.folder + "/case.txt cannot be read");
  ref::Problem &p = g.problem;
  std::string line, key, word;
  while (std::getline(file, line)) {
    std::istringstream values(line);
    values >> key;
    if (key == "shape") {
      values >> p.batch >> p.classes;
      for (int64_t n; values >> n;) p.spatial.push_back(n);
    } else if (key == "spacing") {
      for (double h; values >> h;) p.spacing.push_back(h);
    } else if (key == "iterations") {
      values >> p.iterations;
    } else if (key == "eps") {
      values >> p.eps;
    } else if (key == "init_eps") {
      values >> p.init_eps;
    } else if (key == "tv") {
      p.tv = true;
    } else if (key == "tv_lam") {
      values >> p.lam;
    } else if (key == "tv_tau") {
      values >> p.tau;
    } else if (key == "edge") {
      p.edge = g.array("tv_edge");
    } else if (key == "volume") {
      values >> word;
      p.volume = word == "box" ? ref::Volume::box : ref::Volume::equality;
      p.lower = g.array(word == "box" ? "volume_lower" : "volume");
      p.upper = g.array(word == "box" ? "volume_upper" : "volume");
    } else if (key == "td_lam") {
      p.td.on = true;
      values >> p.td.lam;
    } else if (key == "td_size") {
      values >> p.td.size;
      p.td.extent.assign(p.nd(), p.td.size);
      p.td.kernel = g.array("td_kernel");
    } else if (key == "td_sigma") {
      values >> p.td.sigma;
    } else if (key == "td_edge") {
      p.td.edge = g.array("td_edge");
    } else if (key == "star") {
      int32_t class_index = 0;
      double tau = 0;
      values >> class_index >> tau;
      p.star.classes.push_back(class_index);
      p.star.tau.push_back(tau);
    } else {
      throw std::runtime_error(g.folder + "/case.txt: unknown key " + key);
    }
  }
  p.features = g.array("o");
  g.grad_u = g.array("grad_u");
  p.star.center = g.stars("star_center", p.nd());
  return g;
}

std::vector<std::string> golden_names() {
  return {"tv_1d",           "tv_softmax_2d",     "vptv_2d",       "vptv_2d_edge",
          "vptv_2d_medium",  "vptv_2d_small_eps", "vptv_3d",       "vptv_3d_spacing",
          "vptv_21_classes", "volume_only_2d",    "box_volume_2d", "thin_2d",
          "std_2d",          "std_2d_edge",       "std_2d_eps01",  "std_2d_medium",
          "vpstd_2d",        "vpstd_3d",          "ssstd_2d",      "ssstd_3d",
          "all_priors_2d"};
}

}  // namespace segprior::test
