"""The tests behind what docs/comparison.md claims for this library, by the first cell of each row."""

FEATURES: dict[str, list[str]] = {
    "The same call and result type for every method": ["contract/test_output.py::test_output_has_one_form"],
    "Methods by name from a configuration": [
        "core/test_registry.py::test_one_line_of_configuration_builds_them_all"
    ],
    "Decoding indices to vectors": ["contract/test_output.py::test_decode_equals_quantized_in_evaluation"],
    "Decoded vectors equal the output of a training step, bit for bit": [
        "contract/test_output.py::test_decode_equals_quantized_in_training"
    ],
    "Channels on any axis": ["contract/test_output.py::test_channels_may_stand_on_any_axis"],
    "Masks for padded sequences": [
        "contract/test_missing.py::test_a_masked_batch_is_the_batch_of_its_unmasked_vectors"
    ],
    "NaN and infinity are marked and do not affect state": [
        "contract/test_missing.py::test_garbage_is_marked_and_touches_nothing"
    ],
    "Utilization and perplexity": ["core/test_registry.py::test_metrics_are_their_definitions"],
    "An unquantized baseline": ["contract/test_errors.py::test_identity_says_that_it_has_no_codes"],
    "VQ with a learned codebook": ["methods/test_gradients.py::test_codebook_term_moves_only_the_chosen_codes"],
    "EMA codebook": ["methods/test_ema.py::test_sums_follow_their_closed_form"],
    "SimVQ": ["methods/test_gradients.py::test_simvq_gradient_of_the_map"],
    "VQBridge": ["methods/test_maps.py::test_the_bridge_is_the_map_written_out"],
    "Affine map of the codebook": ["methods/test_maps.py::test_a_step_on_the_affine_map_moves_every_code"],
    "FSQ, FSP": [
        "methods/test_fsq.py::test_codes_are_on_the_grid_and_indices_count_it",
        "methods/test_fsp.py::test_noise_keeps_the_uniform_distribution",
    ],
    "LFQ, BSQ": [
        "methods/test_bits.py::test_lfq_code_is_the_nearest_of_all",
        "methods/test_bits.py::test_bsq_error_is_bounded",
    ],
    "Gumbel-softmax": ["methods/test_gradients.py::test_gumbel_gradient_is_softmax"],
    "IBQ, OptVQ, NSVQ": [
        "methods/test_ibq.py::test_value_loss_and_gradients_are_those_of_the_expression",
        "methods/test_optvq.py::test_codes_are_used_equally_where_the_nearest_are_few",
        "methods/test_noise_substitution.py::test_nsvq_is_noise_as_long_as_the_error",
    ],
    "DiVeQ, QINCo, random projection": [
        "methods/test_noise_substitution.py::test_diveq_has_the_expressions_gradient_and_the_codes_value",
        "methods/test_qinco.py::test_a_vector_gets_the_nearest_of_its_own_codes",
        "methods/test_random_projection.py::test_the_index_is_the_papers_equation",
    ],
    "Sampled bits": ["methods/test_bernoulli.py::test_bits_are_drawn_with_their_probabilities"],
    "A scalar codebook for each channel (latent quantization)": [
        "methods/test_multihead.py::test_heads_of_one_channel_are_scalar_codebooks"
    ],
    "Straight-through whose value is the code itself": [
        "core/test_gradient_functions.py::test_straight_through_is_the_code_and_passes_the_gradient"
    ],
    "Rotation trick": ["core/test_gradient_functions.py::test_rotation_is_the_explicit_matrix"],
    "Rotation at z = 0, at −q and at a code at the origin": ["kernels/test_rotation.py::test_degenerate_vectors"],
    "A custom gradient function": ["core/test_gradient_functions.py::test_own_function_keeps_the_exact_value"],
    "The decoder's gradient also reaches the codes": [
        "methods/test_gradients.py::test_decoder_gradient_reaches_the_codes_where_asked"
    ],
    "Reflection instead of rotation": ["core/test_gradient_functions.py::test_reflection_is_the_explicit_matrix"],
    "Residual": ["methods/test_residual.py::test_each_stage_quantizes_what_is_left"],
    "Residual FSQ, groups of residuals": [
        "methods/test_residual.py::test_finer_grids_halve_the_cell_of_the_one_before",
        "methods/test_grouped.py::test_groups_of_residuals_and_residuals_of_groups",
    ],
    "Groups of channels (product quantization)": ["methods/test_grouped.py::test_each_quantizer_has_its_channels"],
    "Heads searched in one call": ["methods/test_multihead.py::test_all_heads_are_searched_in_one_call"],
    "Shared codebook": ["methods/test_residual.py::test_a_shared_codebook_averages_once_over_all_stages"],
    "Stages of different sizes and methods": [
        "methods/test_residual.py::test_stages_of_different_sizes_each_know_their_own"
    ],
    "Stage dropout": ["methods/test_residual.py::test_a_sample_keeps_its_first_stages_uniformly_many"],
    "Bitrate chosen at encoding": ["methods/test_residual.py::test_the_first_codebooks_are_a_quantizer"],
    "Beam search, multi-scale": [
        "methods/test_beam.py::test_the_error_is_never_above_the_greedy_one",
        "methods/test_multiscale.py::test_each_scale_quantizes_the_mean_of_what_is_left",
    ],
    "Codes with fewer channels than the vectors": [
        "methods/test_residual.py::test_stages_that_project_pass_the_losses_of_all"
    ],
    "First codes by k-means": [
        "training/test_initialisation.py::test_every_code_is_used_and_the_error_is_that_of_kmeans"
    ],
    "The same for a whole model, from many batches": [
        "training/test_warm_start.py::test_quantizers_start_in_the_order_of_the_forward"
    ],
    "Dead codes replaced by vectors of the batch": [
        "training/test_replacement.py::test_dead_codes_and_no_others_become_distinct_vectors"
    ],
    "… with their optimizer state, or pulled to anchors (CVQ-VAE)": [
        "training/test_replacement.py::test_moments_shrink_with_what_is_left_of_the_old_code",
        "training/test_replacement.py::test_anchors_pull_by_the_papers_equation",
    ],
    "Cosine distance": ["methods/test_gradients.py::test_cosine_loss_is_the_angle"],
    "Orthogonality of codes": ["training/test_regularizers.py::test_orthogonality_is_the_paper_s_over_k_by_k"],
    "Entropies of the assignments": [
        "training/test_regularizers.py::test_entropy_is_that_of_a_softmax_written_out"
    ],
    "Wasserstein distance of codes and vectors": [
        "training/test_regularizers.py::test_wasserstein_is_the_paper_s_closed_form_and_symmetric"
    ],
    "Schedules of temperature and commitment": [
        "methods/test_options.py::test_schedules_go_from_start_to_end_and_hold"
    ],
    "Codes sampled by distance": ["kernels/test_soft.py::test_gumbel_samples_follow_the_softmax"],
    "Cross entropy of the distances to given codes": [
        "training/test_cross_entropy.py::test_it_is_the_cross_entropy_of_logits_written_out"
    ],
    "Codes updated within the forward": ["methods/test_ema.py::test_sums_follow_their_closed_form"],
    "Loss broken down": ["methods/test_residual.py::test_the_loss_is_the_sum_of_each_stages_own"],
    "`torch.compile` without a graph break": [
        "graphs/test_compile.py::test_one_graph_for_all_batch_sizes_computes_what_eager_mode_does"
    ],
    "`torch.export` for any batch": ["graphs/test_export.py::test_forward_runs_from_a_file_at_other_shapes"],
    "No host synchronisation in a step": ["graphs/test_host_sync.py::test_nothing_is_read_back"],
    "No N × K matrix in memory": ["contract/test_no_matrix.py::test_no_quantizer_takes_the_memory_of_a_matrix"],
    "The nearest code at any offset of the data": [
        "kernels/test_nearest.py::test_nearest_code_is_exact_at_any_offset"
    ],
    "Custom kernels, CPU and Triton": ["triton/test_modules.py::test_agrees_with_the_reference"],
    "Float32 under autocast": ["contract/test_numbers.py::test_autocast_changes_nothing"],
    "Statistics summed over ranks": [
        "distributed/test_training.py::test_a_step_is_that_of_one_process_on_the_whole_batch"
    ],
    "k-means and replacement over ranks": ["distributed/test_replacement.py::test_ranks_replace_alike"],
    "Activation checkpointing moves state once": [
        "contract/test_state.py::test_checkpointing_moves_state_once_and_keeps_gradients"
    ],
    "Replaces the quantizer of an existing model in one line, and restores it": [
        "adapters/images/test_diffusers.py::test_unplug_puts_back_what_stood_there"
    ],
    "Takes over trained codes of other quantizers": [
        "adapters/vector_quantize_pytorch/test_vector_quantize.py::test_kept_codebook_gives_what_the_model_gave"
    ],
    "Codebook usage of every quantizer in a model, by stage and over ranks": [
        "monitoring/test_watch.py::test_names_stages_and_numbers_of_a_model"
    ],
    "Compresses codes to bytes at their entropy": ["bitstream/test_bitstream.py::test_rate_is_the_entropy"],
    "Saved with its configuration, and rebuilt from it alone": [
        "serialization/test_saving.py::test_a_trained_quantizer_comes_back_bit_for_bit"
    ],
}
