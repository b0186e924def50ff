"""What domains state for agents, and that stating nothing is allowed."""

import pytest
from dot_domain import DOT

from vlm_rewards.labelers.domains.agent_facts import AgentFacts, agent_facts_of
from vlm_rewards.labelers.domains.openapp.domain import OPENAPP


def test_a_domain_may_state_nothing():
    assert agent_facts_of(DOT, (32, 32)) == AgentFacts()


def test_touches_are_cells_only_where_the_screen_fills_the_frame():
    assert agent_facts_of(OPENAPP, (160, 96)) == AgentFacts(action_grid=(10, 6), num_actions=66)
    assert agent_facts_of(OPENAPP, (320, 192)).action_grid == (10, 6)
    assert agent_facts_of(OPENAPP, (160, 160)) == AgentFacts(num_actions=66)


def test_facts_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match=r"frame_grid must be numbers of rows and columns, got \(0, 7\)"):
        AgentFacts(frame_grid=(0, 7))
    with pytest.raises(ValueError, match=r"num_actions must be at least the number of cells of \(2, 3\), got 5"):
        AgentFacts(action_grid=(2, 3), num_actions=5)
    with pytest.raises(ValueError, match=r"num_actions must be at least the number of cells of \(2, 3\), got None"):
        AgentFacts(action_grid=(2, 3))
