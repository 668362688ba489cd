#include "bootstrap/mac.hpp"

#include <sodium.h>

#include <bit>

#include "base/check.hpp"

namespace switchyard {

static_assert(std::endian::native == std::endian::little, "numbers are hashed as they lie in memory");

namespace {

class Hash {
 public:
  Hash(ByteView key, std::size_t bytes) {
    crypto_generichash_init(&state_, reinterpret_cast<unsigned char const*>(key.data()), key.size(), bytes);
  }
  void add(ByteView part) {
    crypto_generichash_update(&state_, reinterpret_cast<unsigned char const*>(part.data()), part.size());
  }
  template <typename Result>
  Result end() {
    Result result{};
    crypto_generichash_final(&state_, reinterpret_cast<unsigned char*>(result.data()), result.size());
    return result;
  }

 private:
  crypto_generichash_state state_;
};

Mac hash_of_parts(ByteView key, std::initializer_list<ByteView> parts) {
  Hash hash(key, Mac{}.size());
  for (ByteView const part : parts) hash.add(part);
  return hash.end<Mac>();
}

}  // namespace

Key::~Key() {
  sodium_memzero(bytes_.data(), bytes_.size());
}

Key Key::of_token(std::string_view token) {
  // Chooses the fastest code for this machine, once a process.
  static bool const ready = sodium_init() >= 0;
  if (!ready) throw SystemError("libsodium cannot be used on this machine", {});
  constexpr std::string_view what = "switchyard key of a job's token:";
  return Key(hash_of_parts({}, {std::as_bytes(std::span(what)), std::as_bytes(std::span(token))}));
}

Mac Key::mac(std::initializer_list<ByteView> parts) const {
  return hash_of_parts(bytes_, parts);
}

bool equal_in_constant_time(ByteView one, ByteView other) noexcept {
  return one.size() == other.size() && sodium_memcmp(one.data(), other.data(), one.size()) == 0;
}

Tag MessageTags::tag(std::initializer_list<ByteView> parts) const {
  Hash hash(key_.bytes(), Tag{}.size());
  hash.add(std::as_bytes(std::span(&number_, 1)));
  for (ByteView const part : parts) hash.add(part);
  return hash.end<Tag>();
}

}  // namespace switchyard
