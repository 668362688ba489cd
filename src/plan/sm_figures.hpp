// The measured and published figures behind the model of sm_plan.hpp. To fit it again, change these alone;
// tests/unit/plan/sm.cpp holds the measurements and says how far the model is from each.
#pragma once

#include <cstddef>

namespace switchyard::figures {

// How one kind of call uses a GPU.
struct CallFigures {
  double sm_rate;        // bytes per second, read plus written, that one SM moves when nothing else limits it
  double piece_seconds;  // what each piece of a token's rows takes in addition
  double
      memory_share;   // the share of the memory's data-sheet bandwidth that the payload reaches with SMs in plenty
  double link_share;  // the same share of the link's bandwidth
  // Launch, agreement and close, in seconds; the second comes once for each rank on the GPU.
  double fixed_seconds;
  double fixed_seconds_per_sharer;
};

// Fitted on 2026-11-24 to whole calls on one H200 that 4 or 8 ranks share, and on two H100s linked by NVLink: the
// least largest error over 4 to 64 SMs a rank, BF16 and FP8, 4096 and 128 tokens (bench/results/, docs/tuning.md).
// A dispatch gets less of the memory's bandwidth than a combine because five sixths of its bytes are writes.
inline constexpr CallFigures dispatch{.sm_rate = 70e9,
                                      .piece_seconds = 0,
                                      .memory_share = 0.76,
                                      .link_share = 0.7,
                                      .fixed_seconds = 16e-6,
                                      .fixed_seconds_per_sharer = 2.5e-6};
inline constexpr CallFigures combine{.sm_rate = 90e9,
                                     .piece_seconds = 180e-9,
                                     .memory_share = 0.96,
                                     .link_share = 0.66,
                                     .fixed_seconds = 8e-6,
                                     .fixed_seconds_per_sharer = 2e-6};

// How long a load of a dispatch takes when memory is full but no more, and up to how many times what memory takes
// SMs may ask for before they need no bound: measured on 2026-11-29 on one H200 that 2, 4 or 8 ranks share, with 32
// to 128 SMs together (bench/results/2026-11-30-gpu.md).
inline constexpr double load_seconds = 2.2e-6;
inline constexpr double most_crowded = 2.1;

// Size of a piece; see plan/copy_plan.hpp.
inline constexpr double piece_bytes = 4096;

// How much SMs and memory (or link) slow each other down, from the same measurements. At 1 their times add up; the
// larger it is, the more the slower one alone counts.
inline constexpr double sharpness = 3;

// A call has enough SMs when no larger number makes it faster than by this ratio.
inline constexpr double good_enough = 0.95;

struct GpuFigures {
  int capability;            // 10 * major + minor
  std::size_t memory_bytes;  // at least; tells boards of one capability apart
  double memory;             // bytes per second
  double link;               // bytes per second, one way: NVLink, else PCIe
};

// From data sheets, in ascending order. A GPU that is not listed takes the last line that asks for no more than it
// has. The driver's attributes cannot replace the table: newer drivers report no memory clock, or not the one that
// counts.
inline constexpr GpuFigures gpus[] = {
    {80, 0, 1.56e12, 300e9},               // A100 40 GB
    {80, 60'000'000'000, 2.0e12, 300e9},   // A100 80 GB
    {86, 0, 0.70e12, 32e9},                // A40
    {89, 0, 0.86e12, 32e9},                // L40S
    {90, 0, 3.35e12, 450e9},               // H100 SXM 80 GB
    {90, 90'000'000'000, 3.9e12, 450e9},   // H100 NVL, GH200 96 GB
    {90, 120'000'000'000, 4.8e12, 450e9},  // H200
    {100, 0, 8.0e12, 900e9},               // B200
    {120, 0, 1.8e12, 64e9},                // RTX PRO 6000
};

}  // namespace switchyard::figures
