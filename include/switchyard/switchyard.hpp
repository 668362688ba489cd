// Everything a C++ program needs, and what its benchmarks need.
#pragma once

#include "switchyard/buffer.hpp"
#include "switchyard/communicator.hpp"
#include "switchyard/dtype.hpp"
#include "switchyard/error.hpp"
#include "switchyard/experts.hpp"
#include "switchyard/interrupt.hpp"
#include "switchyard/low_latency.hpp"
#include "switchyard/measure.hpp"
#include "switchyard/stream.hpp"
#include "switchyard/tensor.hpp"
#include "switchyard/trace.hpp"
