"""The buffers under the names of DeepEP's modules."""
