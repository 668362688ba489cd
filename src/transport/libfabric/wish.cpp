#include "base/config.hpp"
#include "transport/libfabric/libfabric.hpp"

namespace switchyard::transport::libfabric {

namespace {

constexpr std::string_view left_to_us = "auto";

std::vector<std::string> parts_of(std::string const& text) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    std::size_t const end = std::min(text.find(',', begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

}  // namespace

Wish wish_of_environment() {
  Wish wish;
  if (std::string const provider = config_text(Setting::fabric_provider); provider != left_to_us) {
    wish.provider = provider;
  }
  if (std::string const nics = config_text(Setting::fabric_nics); nics != left_to_us) wish.nics = parts_of(nics);
  return wish;
}

}  // namespace switchyard::transport::libfabric
