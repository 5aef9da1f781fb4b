"""Predictions: what one rests on belongs to it alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from simdep.prediction import simulate
from simdep.scenario.spec import Scenario


def test_threads_simulate_at_once_with_the_assumptions_of_their_own_scenario() -> None:
    scenarios = [
        Scenario.of("deepseek-v2", hardware, ag=3, eg=5, layers=layers, samples=samples)
        for hardware in ("h20", "h100")
        for layers, samples in ((2, 1), (3, 4))
    ]

    def sentences(scenario: Scenario) -> list[str]:
        return simulate(scenario).assumptions

    alone = [sentences(scenario) for scenario in scenarios]
    assert len(set(map(tuple, alone))) == len(scenarios)
    with ThreadPoolExecutor(max_workers=8) as pool:
        for _ in range(5):
            assert list(pool.map(sentences, scenarios)) == alone
