"""simdep: discrete-event simulation of disaggregated MoE inference, validated against real runs.

Scenario --policy--> Schedule --engine(costs)--> Timeline --> report, trace, figures. Import from
the modules: `from simdep.simulation.engine import simulate_schedule`.
"""

__version__ = "0.1.0"
