// Which engine a buffer gets.
#pragma once

#include "node/node.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard {

struct EngineWish {
  char const* options = "";  // the type that it is a field of; goes into the error
  EngineKind engine = EngineKind::automatic;
};

// Collective: all ranks take the same engine, or none goes on.
EngineKind choose_engine(Node& node, EngineWish const& wish);

}  // namespace switchyard
