"""The same checks on the CPU, on a GPU that all ranks share, and on GPUs of their own: in one set of processes each."""

import devices
import pytest
import sequences

buffer = [f"device_buffer.{name}" for name in (
    "rows_of_each_dtype", "fp8_pairs_and_casts", "expanded_rows", "worst_case", "cached_and_masks", "asynchronous",
    "own_memory",
)]
deep_ep = [f"device_deep_ep.{name}" for name in (
    "every_result", "fp8_and_cached", "late_inputs", "events_and_streams", "layouts", "worst_case",
    "memory_is_reused_in_order", "shares_of_sms",
)] + [f"clients.{name}" for name in (
    "trainer", "trainer_that_destroys", "all_keywords", "config_from_json", "constructor_retries", "subgroups",
)]
decoding = [f"decoding_clients.{name}" for name in ("vllm", "sglang", "lmdeploy")]
elastic = [f"device_elastic.{name}" for name in (
    "flat", "expanded", "cached", "without_cpu_sync", "fp8_column_major", "late_inputs", "events_and_streams",
    "shares_of_sms",
)] + [f"elastic_clients.{name}" for name in ("trainer_expanded", "trainer_by_hand", "trainer_flat", "inference")]
low_latency = [f"low_latency_clients.{name}" for name in (
    "bf16_steps", "fp8_steps", "two_micro_batches", "two_sends", "kept_handles", "statistics", "masks",
)] + ["device_low_latency.halves_on_streams", "device_low_latency.all_options_of_the_buffer"]
graphs = [f"device_graphs.{name}" for name in ("decoding", "decoding_layers", "decoding_in_fp8", "worst_case")]
gradients = [f"device_torch.{name}" for name in ("layer", "transposed_maps", "compiled")]
errors = [f"device_errors.{name}" for name in (
    "mixed_devices", "wrong_gpu", "ids_out_of_range", "low_latency_on_one_rank_only", "left_at_exit",
)]
frameworks = [f"device_frameworks.{name}" for name in ("cupy_arrays", "jax_arrays")]
everything = buffer + deep_ep + elastic + low_latency + decoding + graphs + gradients + errors + frameworks


@pytest.fixture(
    scope="module", params=[("cpu", 4), ("cuda", 4), ("cuda", 8), ("nccl", 2)], ids=lambda p: f"{p[0]}-{p[1]}"
)
def outcomes(request, tmp_path_factory):
    device, size = request.param
    why = devices.why_not(device)
    if why:
        pytest.skip(why)
    chosen = {item.callspec.params["body"] for item in request.session.items if item.path == request.path}
    names = [name for name in everything if name in chosen]  # by pytest's -k
    return sequences.run(size, device, names, tmp_path_factory.mktemp("devices") / "report")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("body", everything)
def test_on_processes(outcomes, body):
    wrong = outcomes.get(body, "not reached: a process ended before it")
    if wrong.startswith(sequences.skipped):
        pytest.skip(wrong.removeprefix(sequences.skipped))
    assert not wrong, wrong
