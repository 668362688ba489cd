// What a misspelt word was meant to be.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace switchyard {

// The candidate that takes the fewest letters put in, left out or exchanged; empty when even that one is unlike
// `word`.
std::string_view nearest(std::string_view word, std::span<std::string_view const> candidates);

// "; did you mean bench?", or nothing.
std::string did_you_mean(std::string_view word, std::span<std::string_view const> candidates);

}  // namespace switchyard
