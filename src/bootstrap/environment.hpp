// From the variables that launchers set to the options of a Communicator.
//
// Who we are:     SWITCHYARD_RANK and SWITCHYARD_WORLD_SIZE, else torchrun's RANK and WORLD_SIZE, else
//                 OMPI_COMM_WORLD_RANK and _SIZE (mpirun of Open MPI), else PMI_RANK and PMI_SIZE (MPICH, Intel
//                 MPI), else SLURM_PROCID and SLURM_NTASKS (srun).
// Where to meet:  SWITCHYARD_STORE (host:port), else MASTER_ADDR and MASTER_PORT + SWITCHYARD_PORT_OFFSET, else,
//                 for a job on one node, a port of loopback between 20000 and 29999 that follows from the job's
//                 id and our user.
// What to show:   SWITCHYARD_TOKEN, else something that follows from the job's id and our user. That keeps jobs
//                 apart that meet by mistake, but it is no secret: token_rule.hpp says what it is good for.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "switchyard/communicator.hpp"

namespace switchyard {

// The value of a variable, or nothing when it is not set. A function, so that tests can bring a map.
using Environment = std::function<std::optional<std::string>(std::string const& variable)>;

Environment process_environment();

// Throws InvalidArgument, naming the variable, what was expected and what was seen.
CommunicatorOptions options_from_environment(Environment const& environment);

}  // namespace switchyard
