// kernels/common/half.h against the definitions of the formats: every 16-bit value, and the float32 numbers
// on either side of every border between two of them.
#include "kernels/common/half.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/support/random.h"
#include "tests/support/small_types.h"

using namespace segprior;
using namespace segprior::test;

namespace {

constexpr float kInf = INFINITY;

template <class Format>
bool narrows(const SmallFloat &type, float value) {
  const uint16_t bits = Format::narrow(value);
  if (std::isnan(value)) return std::isnan(decode(type, bits)) && (bits >> 15) == std::signbit(value);
  return bits == encode(type, value);
}

template <class Format>
void check_all(const SmallFloat &type) {
  int wrong = 0;
  for (uint32_t k = 0; k < 65536; ++k) {
    const uint16_t bits = static_cast<uint16_t>(k);
    const float value = Format::widen(bits);
    const double expected = decode(type, bits);
    const bool same = std::isnan(expected) ? std::isnan(value) : value == expected;
    wrong += !same || std::signbit(value) != ((bits & 0x8000) != 0);
    wrong += !narrows<Format>(type, value);
    // The border to the next larger number, where ties go to the even one.
    const float next = Format::widen(static_cast<uint16_t>(bits + 1));
    if (std::isnan(value) || std::isnan(next) || std::isinf(value) ||
        std::signbit(value) != std::signbit(next))
      continue;
    const double far = std::isinf(next) ? 2 * expected - decode(type, bits - 1) : next;
    const float middle = static_cast<float>((expected + far) / 2);  // exact: one bit more
    for (float border : {middle, std::nextafter(middle, -kInf), std::nextafter(middle, kInf),
                         std::nextafter(value, -kInf), std::nextafter(value, kInf)})
      wrong += !narrows<Format>(type, border);
  }
  CHECK(wrong == 0);

  Random random(3);
  for (int k = 0; k < 200000; ++k) {  // any float32, NaN with any payload among them
    const float value = float_of(static_cast<uint32_t>(random.bits()));
    wrong += !narrows<Format>(type, value);
  }
  for (float value : {0.f, -0.f, kInf, -kInf, 3.4e38f, -3.4e38f, 65504.f, 65519.99f, 65520.f, 65536.f, 1e-45f,
                      -1e-45f, 1.17549435e-38f, 2.9802322e-8f, 2.9802326e-8f, float_of(0x7f800001u),
                      float_of(0xff800001u), float_of(0x7fffffffu)})
    wrong += !narrows<Format>(type, value);
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("16-bit formats: every value, every border between two [small]") {
  check_all<Half>(kFloat16);
  check_all<Bfloat>(kBfloat16);
}
