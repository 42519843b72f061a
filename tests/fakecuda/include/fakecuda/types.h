// CUDA's built-in vector and launch types.
#pragma once

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};

namespace fakecuda {

template <class T, int N>
struct Vector;
template <class T>
struct alignas(2 * sizeof(T)) Vector<T, 2> {
  T x, y;
};
template <class T>
struct Vector<T, 3> {
  T x, y, z;
};
template <class T>
struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) Vector<T, 4> {
  T x, y, z, w;
};

}  // namespace fakecuda

using float2 = fakecuda::Vector<float, 2>;
using float3 = fakecuda::Vector<float, 3>;
using float4 = fakecuda::Vector<float, 4>;
using double2 = fakecuda::Vector<double, 2>;
using double4 = fakecuda::Vector<double, 4>;
using int2 = fakecuda::Vector<int, 2>;
using int3 = fakecuda::Vector<int, 3>;
using int4 = fakecuda::Vector<int, 4>;
using uint2 = fakecuda::Vector<unsigned, 2>;
using uint4 = fakecuda::Vector<unsigned, 4>;
using uchar4 = fakecuda::Vector<unsigned char, 4>;
using short4 = fakecuda::Vector<short, 4>;

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline double4 make_double4(double x, double y, double z, double w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int3 make_int3(int x, int y, int z) { return {x, y, z}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
