// Captures forward and backward of the entropic softmax in a CUDA graph through the public C interface,
// replays the graph on the inputs of the capture and on others, and compares every output bit with ordinary
// calls. Exit status: 0 the same, 1 different or an error, 77 no GPU.

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "segprior/segprior.h"

namespace {

constexpr int64_t kBatch = 2, kClasses = 3, kRows = 65, kColumns = 97, kVoxels = kRows * kColumns;
constexpr size_t kCount = kBatch * kClasses * kVoxels, kBytes = kCount * sizeof(float);

void check(cudaError_t code, const char *what) {
  if (code == cudaSuccess) return;
  std::printf("%s: %s\n", what, cudaGetErrorString(code));
  std::exit(1);
}

void check(segprior_status status, const char *what) {
  if (status == SEGPRIOR_OK) return;
  std::printf("%s: %s: %s\n", what, segprior_status_string(status), segprior_last_error());
  std::exit(1);
}

template <class T = float>
T *allocate(size_t bytes) {
  void *memory = nullptr;
  check(cudaMalloc(&memory, bytes + 1), "cudaMalloc");  // 1: a size of 0 gives a pointer, too
  return static_cast<T *>(memory);
}

std::vector<float> noise(unsigned seed) {
  std::vector<float> values(kCount);
  unsigned state = seed;
  for (float &v : values) {
    state = state * 1664525u + 1013904223u;
    v = static_cast<float>(state >> 8) / (1 << 23) - 1;
  }
  return values;
}

struct Results {
  std::vector<float> u = std::vector<float>(kCount), grad_features = std::vector<float>(kCount);
  std::vector<segprior_info> info = std::vector<segprior_info>(kBatch);

  bool operator==(const Results &other) const {
    return !std::memcmp(u.data(), other.u.data(), kBytes) &&
           !std::memcmp(grad_features.data(), other.grad_features.data(), kBytes) &&
           !std::memcmp(info.data(), other.info.data(), kBatch * sizeof(segprior_info));
  }
};

// One operator call with its buffers, on a stream of its own.
class Program {
 public:
  explicit Program(const segprior_softmax_opts &opts) : opts_(opts) {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    check(segprior_context_create(kDevice, &context_), "segprior_context_create");
    check(segprior_context_set_stream(context_, stream_), "segprior_context_set_stream");
    const float volume[kBatch * kClasses] = {1000, 2000, kVoxels - 3000, 500, 500, kVoxels - 1000};
    check(cudaMemcpy(volume_, volume, sizeof volume, cudaMemcpyHostToDevice), "cudaMemcpy");
    const std::vector<float> grad = noise(3);
    check(cudaMemcpy(grad_u_, grad.data(), kBytes, cudaMemcpyHostToDevice), "cudaMemcpy");

    inputs_.struct_size = sizeof inputs_;
    inputs_.features = &features_view_;
    inputs_.volume = &volume_view_;
    outputs_.struct_size = sizeof outputs_;
    outputs_.u = &u_view_;
    outputs_.info = info_;
    grads_.struct_size = sizeof grads_;
    grads_.features = &grad_features_view_;
    size_t forward = 0, backward = 0;
    check(segprior_softmax_workspace_size(context_, &opts_, &inputs_, &forward, &backward), "workspace_size");
    check(segprior_softmax_saved_size(context_, &opts_, &inputs_, &saved_bytes_), "saved_size");
    workspace_bytes_ = forward > backward ? forward : backward;
    workspace_ = allocate<char>(workspace_bytes_);
    saved_ = allocate<char>(saved_bytes_);
  }

  cudaStream_t stream() const { return stream_; }

  void set_features(unsigned seed) {
    const std::vector<float> values = noise(seed);
    check(cudaMemcpy(features_, values.data(), kBytes, cudaMemcpyHostToDevice), "cudaMemcpy");
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");  // the copy is on another stream
  }

  void queue() {
    check(segprior_softmax_forward(context_, &opts_, &inputs_, &outputs_, workspace_, workspace_bytes_,
                                   saved_, saved_bytes_),
          "segprior_softmax_forward");
    check(segprior_softmax_backward(context_, &opts_, &inputs_, nullptr, &grad_u_view_, &grads_, workspace_,
                                    workspace_bytes_, saved_, saved_bytes_),
          "segprior_softmax_backward");
  }

  // Waits, reads the results and spoils them on the device.
  Results take() {
    Results r;
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    check(cudaMemcpy(r.u.data(), u_, kBytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
    check(cudaMemcpy(r.grad_features.data(), grad_features_, kBytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
    check(cudaMemcpy(r.info.data(), info_, kBatch * sizeof(segprior_info), cudaMemcpyDeviceToHost),
          "cudaMemcpy");
    check(cudaMemset(u_, 0xff, kBytes), "cudaMemset");
    check(cudaMemset(grad_features_, 0xff, kBytes), "cudaMemset");
    check(cudaMemset(info_, 0xff, kBatch * sizeof(segprior_info)), "cudaMemset");
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    return r;
  }

 private:
  static constexpr segprior_device kDevice = {SEGPRIOR_CUDA, 0};
  static constexpr int64_t kImageShape[4] = {kBatch, kClasses, kRows, kColumns};
  static constexpr int64_t kVolumeShape[2] = {kBatch, kClasses};

  static segprior_tensor view(float *data, int32_t ndim, const int64_t *shape) {
    return {data, kDevice, SEGPRIOR_FLOAT32, ndim, shape, nullptr, 0};
  }

  segprior_softmax_opts opts_;
  cudaStream_t stream_ = nullptr;
  segprior_context *context_ = nullptr;
  float *features_ = allocate(kBytes), *u_ = allocate(kBytes), *grad_u_ = allocate(kBytes);
  float *grad_features_ = allocate(kBytes), *volume_ = allocate(kBatch * kClasses * sizeof(float));
  segprior_info *info_ = allocate<segprior_info>(kBatch * sizeof(segprior_info));
  segprior_tensor features_view_ = view(features_, 4, kImageShape), u_view_ = view(u_, 4, kImageShape);
  segprior_tensor grad_u_view_ = view(grad_u_, 4, kImageShape);
  segprior_tensor grad_features_view_ = view(grad_features_, 4, kImageShape);
  segprior_tensor volume_view_ = view(volume_, 2, kVolumeShape);
  segprior_softmax_inputs inputs_{};
  segprior_softmax_outputs outputs_{};
  segprior_softmax_grads grads_{};
  size_t workspace_bytes_ = 0, saved_bytes_ = 0;
  char *workspace_ = nullptr, *saved_ = nullptr;
};

bool same(const char *title, const segprior_softmax_opts &opts) {
  Program program(opts);
  program.set_features(1);
  program.queue();
  const Results first = program.take();
  program.set_features(2);
  program.queue();
  const Results second = program.take();

  cudaGraph_t graph;
  cudaGraphExec_t executable;
  size_t nodes = 0;
  check(cudaStreamBeginCapture(program.stream(), cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
  program.queue();
  check(cudaStreamEndCapture(program.stream(), &graph), "cudaStreamEndCapture");
  check(cudaGraphGetNodes(graph, nullptr, &nodes), "cudaGraphGetNodes");
  check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");

  bool equal = nodes > 0;
  for (const auto &[seed, expected] :
       {std::pair<unsigned, const Results &>{1, first}, {2, second}, {1, first}}) {
    program.set_features(seed);
    check(cudaGraphLaunch(executable, program.stream()), "cudaGraphLaunch");
    equal = program.take() == expected && equal;
  }
  equal = equal && !(first == second);  // else the comparison would show nothing
  std::printf("%s: %zu nodes, %s\n", title, nodes, equal ? "same bits" : "DIFFERENT");
  return equal;
}

}  // namespace

int main() {
  if (segprior_device_count(SEGPRIOR_CUDA) == 0) {
    std::printf("no GPU: skipped\n");
    return 77;
  }
  segprior_softmax_opts opts;
  check(segprior_softmax_opts_init(&opts, sizeof opts), "segprior_softmax_opts_init");
  opts.tv = 1;
  opts.tv_lam = 0.3;
  opts.backward_mode = SEGPRIOR_BACKWARD_UNROLLED;
  opts.checkpoint_interval = 5;
  bool equal = same("plain, 30 iterations", opts);
  opts.accelerate = 1;
  opts.tolerance = 1e-4;
  equal = same("accelerated, with a tolerance", opts) && equal;
  return equal ? 0 : 1;
}
