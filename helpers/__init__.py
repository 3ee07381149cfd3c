"""Diagnostics of attention heads: two numbers per head from one forward pass, and what they are worth.

Data flows one way:

    prompts ─┐
    model  ──┴→ attention record → diagnostics → statistics → figures, tables, widgets

The public names are below; each is imported when it is first used, so that ``import helpers`` costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "prompts.prompt": ["Prompt"],
        "prompts.ioi": ["abc_prompt", "abc_prompts", "ioi_prompt", "ioi_prompts", "minimal_pairs"],
        "prompts.tasks": ["acronyms", "agreement", "greater_than", "ownership", "repeated_lists"],
        "prompts.fit": ["FittedTask", "fit_task"],
        "prompts.tokens": ["readout_ids", "tokenize"],
        "models.load": ["ModelUnavailable", "load_model"],
        "models.patching": ["head_effects", "patch_heads"],
        "models.changes": ["HeadChanges", "record_changes"],
        "models.outputs": ["HeadOutputs", "output_change", "record_outputs"],
        "models.attribution": ["attribute_heads"],
        "models.paths": ["edge_effects", "patch_paths"],
        "attention.capture": ["record_attention"],
        "attention.record": ["AttentionRecord"],
        "diagnostics.rows": ["entropy", "kl_selectivity", "susceptibility"],
        "diagnostics.plane": ["largest_chi", "split_sink", "upper_curve"],
        "diagnostics.budget": ["beta_for_budget", "budget", "tempered"],
        "diagnostics.heads": ["HeadDiagnostics", "diagnose"],
        "statistics.shifts": ["head_shifts", "head_tests"],
        "statistics.ranking": ["auroc", "rank_heads", "within_layer_auroc"],
        "statistics.coupling": ["couple_heads"],
        "reference.circuits": ["ACRONYMS", "GREATER_THAN", "IOI_CORE", "IOI_PAPER", "IOI_POST", "Circuit"],
        "reference.demo": ["causal_edges", "circuit_of"],
        "experiment": ["Experiment", "analyse"],
        "results": ["save_results"],
        "wording": ["report"],
    },
)
