// Element types that travel through Switchyard.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace switchyard {

enum class DType : std::uint8_t { bf16, f16, f32, f8e4m3, i32, i64, u8 };

enum class Device : std::uint8_t { cpu, cuda };

// Bytes per element.
constexpr std::size_t size_of(DType dtype) noexcept {
  switch (dtype) {
    case DType::f8e4m3:
    case DType::u8: return 1;
    case DType::bf16:
    case DType::f16: return 2;
    case DType::f32:
    case DType::i32: return 4;
    case DType::i64: return 8;
  }
  return 0;
}

constexpr std::string_view name_of(DType dtype) noexcept {
  switch (dtype) {
    case DType::bf16: return "bf16";
    case DType::f16: return "f16";
    case DType::f32: return "f32";
    case DType::f8e4m3: return "f8e4m3";
    case DType::i32: return "i32";
    case DType::i64: return "i64";
    case DType::u8: return "u8";
  }
  return "?";
}

}  // namespace switchyard
