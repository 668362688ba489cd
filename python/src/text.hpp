// Texts that cross between the library, whose strings are bytes, and Python, whose strings are Unicode. Neither way
// fails: an error whose text names what came from a file or from the environment must stay that error.
#pragma once

#include <nanobind/nanobind.h>

#include <string>
#include <string_view>

namespace switchyard::python {

// Bytes that are not UTF-8 become \xNN.
nanobind::object to_python(std::string_view text);

// str(object), in UTF-8. What UTF-8 has no bytes for (lone surrogates) becomes \uNNNN.
std::string text_of(nanobind::handle object);

}  // namespace switchyard::python
