"""Checks on the CPU, on a GPU that all ranks share, and on GPUs of their own: one set of processes for each.

A body is a function of a group, which checks itself. Most bodies run on all devices.
"""

import devices
import pytest
import sequences


def names_of(module, names):
    return [f"{module}.{name}" for name in names.split()]


everywhere = [
    *names_of("bodies.buffer", """
        rows_of_each_dtype fp8_pairs_and_casts expanded_rows worst_case cached_and_masks asynchronous own_memory"""),
    *names_of("bodies.deep_ep", """
        every_result source_tokens weights_of_all_ranks tuples ids_overwritten fp8_and_cached cached late_inputs
        events_and_streams layouts worst_case memory_is_reused_in_order shares_of_sms"""),
    *names_of("clients.v1", """
        trainer trainer_that_destroys all_keywords config_from_json constructor_retries subgroups"""),
    *names_of("bodies.elastic", """
        flat expanded cached ids_overwritten statistics without_cpu_sync fp8 late_inputs events_and_streams attributes
        shares_of_sms"""),
    *names_of("clients.v2", "trainer_expanded trainer_by_hand trainer_flat inference"),
    *names_of("bodies.low_latency", """
        bf16_steps fp8_steps two_micro_batches two_sends repeated_ids statistics halves_on_streams
        solitary_mistakes"""),
    *names_of("bodies.low_latency_kept", """
        kept_handles kept_rows kept_small_results combined_again rebuilt_handles"""),
    "bodies.low_latency_masks.masks",
    "bodies.low_latency_buffer.all_options_of_the_buffer",
    *names_of("clients.decode", "vllm sglang lmdeploy"),
    *names_of("bodies.utils", "reference_dispatch reference_combine casts hooks times"),
    *names_of("bodies.layers", "layer transposed_maps compiled"),
    *names_of("bodies.compiled", "decoding prefill buffers"),
    *names_of("bodies.errors", "ids_out_of_range left_at_exit"),
    *names_of("bodies.memory", "held_results handles_keep_no_rows grows_and_shrinks"),
    *names_of("bodies.frameworks", "jax_arrays"),
]
on_cpus = names_of("bodies.elastic_mistakes", "mistakes one_culprit sizes construction late_peer repeated_ids")
on_gpus = [
    *names_of("bodies.graphs", "decoding decoding_layers decoding_in_fp8 worst_case worst_case_of_v2 layouts"),
    *names_of("bodies.errors", "mixed_devices wrong_gpu"),
    *names_of("bodies.memory", "read_on_another_stream two_streams given_back_to_pytorch"),
    *names_of("bodies.frameworks", "cupy_arrays"),
]
over_nodes = [
    *names_of("bodies.nodes", "made_by_environment f32_partials one_after_the_other refusals"),
    *names_of("bodies.buffer", """
        rows_of_each_dtype fp8_pairs_and_casts expanded_rows worst_case cached_and_masks asynchronous"""),
    *names_of("bodies.deep_ep", """
        every_result source_tokens weights_of_all_ranks tuples ids_overwritten fp8_and_cached cached events_and_streams
        layouts worst_case"""),
    *names_of("clients.v1", "trainer config_from_json subgroups"),
    *names_of("bodies.elastic", "flat expanded cached statistics without_cpu_sync fp8 attributes"),
    *names_of("clients.v2", "trainer_expanded inference"),
    *names_of("bodies.layers", "layer"),
    *names_of("bodies.errors", "ids_out_of_range"),
    "bodies.nodes.masked_node",
    *names_of("bodies.low_latency", "bf16_steps fp8_steps two_micro_batches two_sends repeated_ids statistics"),
    *names_of("bodies.low_latency_kept", "kept_rows combined_again rebuilt_handles"),
    "bodies.low_latency_buffer.all_options_of_the_buffer",
    *names_of("clients.decode", "sglang lmdeploy"),
]
played = ("0011", "0112")  # by rank: its node
jobs = [("cpu", 2), ("cpu", 4), ("cuda", 4), ("cuda", 8), ("nccl", 2)]


def bodies_of(device, size):
    bodies = everywhere + (on_cpus if device == "cpu" else on_gpus)
    if size != 4:
        return bodies
    return bodies + [f"{name}@{nodes}" for nodes in played for name in over_nodes]



_outcomes = {}  # by job: pytest would make a module's fixture again for each body


@pytest.fixture
def outcomes(request, tmp_path_factory):
    device, size = job = request.param
    why = devices.why_not(device)
    if why:
        pytest.skip(why)
    if job not in _outcomes:
        chosen = [
            item.callspec.params["body"]
            for item in request.session.items  # the ones that pytest's -k selects
            if item.path == request.path and item.callspec.params["outcomes"] == job
        ]
        _outcomes[job] = sequences.run(size, device, chosen, tmp_path_factory.mktemp("devices") / "report")
    return _outcomes[job]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "outcomes, body",
    [pytest.param(job, body, id=f"{job[0]}-{job[1]}-{body}") for job in jobs for body in bodies_of(*job)],
    indirect=["outcomes"],
)
def test_on_processes(outcomes, body):
    wrong = outcomes[body]
    if wrong.startswith(sequences.skipped):
        pytest.skip(wrong.removeprefix(sequences.skipped))
    assert not wrong, wrong
