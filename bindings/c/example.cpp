// Cuts the bright objects out of a photograph:
//   1. softmax with a total-variation and a volume prior: the objects cover exactly the asked share;
//   2. SoftCut: that decision, averaged along edges which the contrast of the picture weakens.
// Reads a binary PGM or PPM and writes a PGM with the background darkened. Without arguments it makes a noisy
// picture of three discs and compares the result with them.
//
// C++17, no other library. Build against an installed libsegprior, with exceptions or with -fno-exceptions:
//   c++ -std=c++17 example.cpp $(pkg-config --cflags --libs segprior) -o example
//   ./example [photo.ppm [share of the objects: 0.3 [result.pgm]]]
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "segprior/segprior.hpp"

namespace {

struct Picture {
  int64_t rows = 0, columns = 0;
  std::vector<float> grey;  // 0 .. 1, row by row

  int64_t pixels() const { return rows * columns; }
  std::size_t size() const { return static_cast<std::size_t>(pixels()); }
  float at(int64_t row, int64_t column) const {
    return grey[static_cast<std::size_t>(row * columns + column)];
  }
};

// With exceptions a call that fails has thrown; without, its status has to be looked at.
void check(const segprior::Status &status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.what());
  std::exit(1);
}

// A call may end well and its iteration not: NaN in the picture, a share that cannot be.
void check(const segprior_info &info) {
  if (info.status == SEGPRIOR_CONVERGED || info.status == SEGPRIOR_ITERATION_CAP) return;
  std::fprintf(stderr, "no result: the report's status is %d\n", static_cast<int>(info.status));
  std::exit(1);
}

// A number of a PNM header, behind white space and comments.
int64_t header_number(std::istream &file) {
  std::string line;
  while ((file >> std::ws).peek() == '#') std::getline(file, line);
  int64_t number = 0;
  file >> number;
  return number;
}

// Empty if the file is no 8-bit binary PGM or PPM.
Picture read_picture(const char *path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  file >> magic;
  Picture picture;
  const int64_t columns = header_number(file), rows = header_number(file), maximum = header_number(file);
  const int64_t channels = magic == "P6" ? 3 : 1;
  constexpr int64_t kLargest = 1 << 15;
  if (!file || (magic != "P5" && magic != "P6") || maximum < 1 || maximum > 255 || rows < 2 || columns < 2 ||
      rows > kLargest || columns > kLargest)
    return picture;
  file.get();
  std::vector<char> bytes(static_cast<std::size_t>(rows * columns * channels));
  if (!file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) return picture;
  picture.rows = rows;
  picture.columns = columns;
  picture.grey.assign(picture.size(), 0.0f);
  const float scale = 1.0f / static_cast<float>(maximum * channels);
  for (std::size_t k = 0; k < bytes.size(); ++k)
    picture.grey[k / static_cast<std::size_t>(channels)] += scale * static_cast<unsigned char>(bytes[k]);
  return picture;
}

bool write_picture(const char *path, const Picture &picture) {
  std::ofstream file(path, std::ios::binary);
  file << "P5\n" << picture.columns << ' ' << picture.rows << "\n255\n";
  for (float grey : picture.grey) file.put(static_cast<char>(std::lround(255 * std::fmin(1.0f, grey))));
  return static_cast<bool>(file.flush());
}

bool in_a_disc(int64_t row, int64_t column) {
  constexpr int64_t kDiscs[][3] = {{24, 30, 16}, {40, 88, 20}, {76, 44, 14}};  // row, column, radius
  for (const auto &disc : kDiscs) {
    const int64_t y = row - disc[0], x = column - disc[1];
    if (y * y + x * x < disc[2] * disc[2]) return true;
  }
  return false;
}

Picture discs() {
  Picture picture{96, 120, {}};
  uint32_t state = 1;
  for (int64_t row = 0; row < picture.rows; ++row)
    for (int64_t column = 0; column < picture.columns; ++column) {
      state = state * 1664525u + 1013904223u;
      const float noise = static_cast<float>(state >> 8) / static_cast<float>(1u << 24) - 0.5f;
      picture.grey.push_back((in_a_disc(row, column) ? 0.65f : 0.35f) + 0.7f * noise);
    }
  return picture;
}

// How alike a pixel is to a dark and a bright grey value, the means of two groups (k-means): [1, 2, *S], the
// objects first.
std::vector<float> likeness(const Picture &picture) {
  float dark = 0, bright = 1;
  for (int step = 0; step < 20; ++step) {
    float sum[2] = {0, 0}, count[2] = {0, 0};
    for (float grey : picture.grey) {
      const int group = std::fabs(grey - bright) < std::fabs(grey - dark) ? 1 : 0;
      sum[group] += grey;
      count[group] += 1;
    }
    if (count[0] > 0) dark = sum[0] / count[0];
    if (count[1] > 0) bright = sum[1] / count[1];
  }
  std::vector<float> features;
  for (float center : {bright, dark})
    for (float grey : picture.grey) features.push_back(-(grey - center) * (grey - center));
  return features;
}

// [1, 1, rows - down, columns - across]: strong edges between pixels of the same grey.
std::vector<float> edges(const Picture &picture, int64_t down, int64_t across) {
  std::vector<float> weights;
  for (int64_t row = 0; row + down < picture.rows; ++row)
    for (int64_t column = 0; column + across < picture.columns; ++column) {
      const float contrast = picture.at(row, column) - picture.at(row + down, column + across);
      weights.push_back(5 * std::exp(-20 * contrast * contrast));
    }
  return weights;
}

// The score of each pixel: positive in the objects.
std::vector<float> cut(const Picture &picture, double share) {
  const int64_t rows = picture.rows, columns = picture.columns;
  const segprior::Shape classes{1, 2, rows, columns}, one{1, 1, rows, columns};
  const segprior::Context context;  // the CPU
  segprior_info info{};

  const std::vector<float> features = likeness(picture);
  const float objects = static_cast<float>(share * static_cast<double>(picture.pixels()));
  const float volume[2] = {objects, static_cast<float>(picture.pixels()) - objects};
  std::vector<float> u(features.size());
  segprior::Softmax softmax(context);
  softmax.options.eps = 0.02;
  softmax.options.tv = 1;
  softmax.options.tv_lam = 0.06;
  softmax.options.iterations = 300;
  softmax.inputs.features = {features, classes};
  softmax.inputs.volume = {volume, {1, 2}};
  softmax.outputs.u = {u, classes};
  softmax.outputs.info = &info;
  check(softmax.forward());
  check(info);
  double covered = 0;
  for (std::size_t k = 0; k < picture.size(); ++k) covered += static_cast<double>(u[k]);
  std::printf("softmax: objects of %.1f pixels (asked for %.1f), last change %.1e after %d iterations\n",
              covered, static_cast<double>(objects), info.residual, static_cast<int>(info.iterations));

  std::vector<float> scores(picture.size()), x(picture.size());
  for (std::size_t k = 0; k < scores.size(); ++k) scores[k] = 2 * u[k] - 1;
  const std::vector<float> down = edges(picture, 1, 0), across = edges(picture, 0, 1);
  segprior::Softcut softcut(context);
  softcut.options.tolerance = 1e-4;
  softcut.inputs.scores = {scores, one};
  softcut.inputs.edges[0] = {down, {1, 1, rows - 1, columns}};
  softcut.inputs.edges[1] = {across, {1, 1, rows, columns - 1}};
  softcut.outputs.x = {x, one};
  softcut.outputs.info = &info;
  check(softcut.forward());
  check(info);
  std::printf("softcut: residual %.1e after %d iterations\n", info.residual,
              static_cast<int>(info.iterations));
  return x;
}

int run(int argc, char **argv) {
  const bool made = argc < 2;
  const Picture picture = made ? discs() : read_picture(argv[1]);
  if (picture.grey.empty()) {
    std::fprintf(stderr, "%s is no binary PGM or PPM with 8 bits\n", argv[1]);
    return 1;
  }
  double truth = 0;
  for (int64_t k = 0; k < picture.pixels(); ++k)
    truth += in_a_disc(k / picture.columns, k % picture.columns) ? 1 : 0;
  const double share = argc > 2 ? std::atof(argv[2])
                       : made   ? truth / static_cast<double>(picture.pixels())
                                : 0.3;
  const std::vector<float> x = cut(picture, share);

  Picture result = picture;
  int64_t right = 0;
  for (std::size_t k = 0; k < result.size(); ++k) {
    const int64_t row = static_cast<int64_t>(k) / picture.columns,
                  column = static_cast<int64_t>(k) % picture.columns;
    if (x[k] <= 0) result.grey[k] *= 0.25f;
    if ((x[k] > 0) == in_a_disc(row, column)) ++right;
  }
  const char *path = argc > 3 ? argv[3] : "example.pgm";
  if (!write_picture(path, result)) {
    std::fprintf(stderr, "cannot write %s\n", path);
    return 1;
  }
  std::printf("wrote %s\n", path);
  if (!made) return 0;
  const double accuracy = static_cast<double>(right) / static_cast<double>(picture.pixels());
  std::printf("pixels on the right side of the discs' outlines: %.2f %%\n", 100 * accuracy);
  return accuracy > 0.98 ? 0 : 1;
}

}  // namespace

int main(int argc, char **argv) {
#if SEGPRIOR_CPP_EXCEPTIONS
  try {
    return run(argc, argv);
  } catch (const segprior::Error &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
#else
  return run(argc, argv);
#endif
}
