# SWITCHYARD_CUDA: the CUDA engine, if nvcc is there (AUTO), or always or never. Sets SWITCHYARD_HAS_CUDA.
set(SWITCHYARD_CUDA AUTO CACHE STRING "build the CUDA engine: AUTO, ON or OFF")
set_property(CACHE SWITCHYARD_CUDA PROPERTY STRINGS AUTO ON OFF)
set(SWITCHYARD_CUDA_ARCHITECTURES "80;90a;100a" CACHE STRING "GPU architectures that kernels are built for")

set(SWITCHYARD_HAS_CUDA OFF)
# Sanitizers of the host compiler do not go through nvcc: with ON, kernels and their launches go without.
if(NOT SWITCHYARD_CUDA STREQUAL "OFF" AND NOT (SWITCHYARD_SANITIZE AND SWITCHYARD_CUDA STREQUAL "AUTO"))
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_ARCHITECTURES OFF)  # CMake does not know all names of architectures; see SWITCHYARD_GENCODE
    enable_language(CUDA)
    find_package(CUDAToolkit 12.5 REQUIRED)
    set(SWITCHYARD_HAS_CUDA ON)
  elseif(SWITCHYARD_CUDA STREQUAL "ON")
    message(FATAL_ERROR "SWITCHYARD_CUDA=ON: no nvcc found")
  endif()
endif()

set(SWITCHYARD_GENCODE "")
foreach(arch ${SWITCHYARD_CUDA_ARCHITECTURES})
  list(APPEND SWITCHYARD_GENCODE "-gencode=arch=compute_${arch},code=sm_${arch}")
endforeach()
