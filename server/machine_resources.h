#ifndef QUICKSAVE_SERVER_MACHINE_RESOURCES_H_
#define QUICKSAVE_SERVER_MACHINE_RESOURCES_H_

#include <cstdint>

namespace quicksave::server {

// Bytes of memory that this process may use: of the machine, or the smallest limit of its control groups (v1 and v2).
uint64_t MemoryLimit();

// Processors that this process may use: its affinity mask, or the smallest quota of its control groups, rounded up. At
// least 1.
int ProcessorLimit();

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_MACHINE_RESOURCES_H_
