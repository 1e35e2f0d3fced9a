import json

from stillhouse.runner import outbox


def test_a_message_lies_there_until_it_was_delivered(tmp_path):
    assert outbox.waiting(tmp_path, "train_student@gru") is None
    poster = outbox.Poster(tmp_path, "train_student@gru", "r1", {"training": {"epochs": 3}})
    begun = outbox.waiting(tmp_path, "train_student@gru")
    assert (begun.run_id, begun.params, begun.done) == ("r1", {"training": {"epochs": 3}}, False)
    poster.log([(0, {"loss": 2.0}), (1, {"loss": 1.5})], {"rows": 3})
    left = outbox.waiting(tmp_path, "train_student@gru")
    assert [(step, dict(said)) for step, said in left.series] == [(0, {"loss": 2.0}), (1, {"loss": 1.5})]
    assert (left.values, left.done, left.at >= begun.at > 1_700_000_000_000) == ({"rows": 3}, True, True)
    outbox.drop(tmp_path, "train_student@gru")
    assert outbox.waiting(tmp_path, "train_student@gru") is None


def test_what_is_not_finite_is_left_out_and_the_message_stays_json(tmp_path):
    outbox.Poster(tmp_path, "a", "r1", {}).log([(0, {"loss": float("nan"), "norm": 1.0})], {})
    assert outbox.waiting(tmp_path, "a").series[0][1] == {"norm": 1.0}


def test_a_message_travels_as_plain_data(tmp_path):
    message = outbox.Message("r1", {"k": 1}, [(0, {"loss": 1.0})], {"rows": 2}, at=7, done=True)
    outbox.post(tmp_path, "a", message)
    outbox.post(tmp_path, "b", outbox.Message(**json.loads(json.dumps(message.document()))))
    assert outbox.waiting(tmp_path, "a") == outbox.waiting(tmp_path, "b")
