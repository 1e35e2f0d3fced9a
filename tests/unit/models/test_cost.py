"""What a model costs, against the count by hand."""

from __future__ import annotations

from stillhouse.models.build import build
from stillhouse.models.cost import cost
from stillhouse.params.model import EnsembleSpec, GruSpec, ItemKnnSpec, MemberSpec, TransformerSpec


def test_the_transformers_cost_is_the_count_by_hand() -> None:
    width, length, n_items = 8, 6, 10
    spec = TransformerSpec(kind="transformer", width=width, blocks=1, heads=2, length=length, dropout=0.0)
    found = cost(build(spec, n_items).eval())
    linear = 4 * width * width + 2 * 2 * width * width
    biases = 4 * width + 3 * width
    norms = 3 * 2 * width
    assert found["parameters_without_embeddings"] == linear + biases + norms + length * width
    assert found["parameters"] - found["parameters_without_embeddings"] == (n_items + 1) * width
    attention = 2 * (2 * length * length * width)
    assert found["flops"] == 2 * length * linear + attention + 2 * width * (n_items + 1)


def test_the_grus_cost_is_the_count_by_hand() -> None:
    width, length, n_items = 8, 6, 10
    found = cost(build(GruSpec(kind="gru", width=width, blocks=1, length=length, dropout=0.0), n_items).eval())
    assert found["parameters_without_embeddings"] == 2 * 3 * width * width + 2 * 3 * width + 2 * width
    assert found["flops"] == 2 * length * 2 * 3 * width * width + 2 * width * (n_items + 1)


def test_an_ensembles_cost_is_that_of_its_members_and_a_closed_form_has_one_table() -> None:
    gru = GruSpec(kind="gru", width=8, blocks=1, length=6, dropout=0.0)
    knn = ItemKnnSpec(kind="item_knn", length=6, decay=0.9, neighbours=4)
    spec = EnsembleSpec(kind="ensemble", members={"gru": MemberSpec(model=gru), "knn": MemberSpec(model=knn)})
    one, other = cost(build(gru, 10).eval()), cost(build(knn, 10).eval())
    assert other == {"parameters": 11 * 4, "parameters_without_embeddings": 11 * 4, "flops": 0}
    assert cost(build(spec, 10).eval()) == {name: one[name] + other[name] for name in one}
