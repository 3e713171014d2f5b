"""A vLLM server as generation engine: the local driver's rollouts, fresh weights, nothing scored that went wrong."""

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.train

from cm2.errors import CM2Error, ConfigError  # noqa: E402
from cm2.judge import ChecksJudge  # noqa: E402
from cm2.rollout.driver import Driver  # noqa: E402
from cm2.rollout.environment import Environment  # noqa: E402
from cm2.rollout.generation import Generation  # noqa: E402
from cm2.rollout.limits import Limits  # noqa: E402
from cm2.rollout.run import default_world  # noqa: E402
from cm2.rollout.sampling import Sampling  # noqa: E402
from cm2.rollout.served import ServedDriver  # noqa: E402
from rollout.coffee_task import task  # noqa: E402
from rollout.tiny_models import tiny_chat  # noqa: E402
from servers.tiny_vllm import TinyVllm  # noqa: E402

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}
GREEDY = Sampling(temperature=0, max_step_tokens=6, max_tokens=1400)


@pytest.fixture(scope="module")
def policy():
    return tiny_chat(**SHAPE)


def environments(count=4, steps=3):
    one = task()
    world = default_world(one, 0)
    return [Environment(one, world.session(), ChecksJudge(), Limits(steps=steps)) for _ in range(count)]


def served(server, policy, tmp_path, sampling=GREEDY, **settings):
    urls = [one.url for one in server] if isinstance(server, list) else server.url
    usual = {"dtype": "float32", "retries": 2, "backoff": 0.0, "timeout": 30.0}
    generation = Generation(engine="vllm", base_url=urls, **usual | settings)
    return ServedDriver(generation, policy[1], sampling, folder=tmp_path / "weights", context=2048)


def parts(rollouts):
    return [[(s.turn, s.step, s.prompt, s.tokens) for s in rollout.segments] for rollout in rollouts]


def moved(policy, by=0.3, seed=5):
    """The same model elsewhere."""
    model = type(policy[0])(policy[0].config).eval()
    model.load_state_dict(policy[0].state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)) * by)
    return model


def local(model, policy, sampling=GREEDY, **more):
    return Driver(model, policy[1], sampling, workers=1, lean=False).run(environments(**more))


def test_greedy_rollouts_are_the_local_drivers_token_for_token(policy, tmp_path):
    """Ids, segments, log-probabilities and how they end: it makes no difference who decodes."""
    with TinyVllm(*policy) as server:
        driver = served(server, policy, tmp_path)
        driver.update_weights(policy[0])
        theirs = driver.run(environments())
    mine = local(policy[0], policy)
    assert parts(theirs) == parts(mine)
    for one, other in zip(theirs, mine, strict=True):
        for a, b in zip(one.segments, other.segments, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
        assert (one.reason, one.owner, one.group, one.member) == (other.reason, other.owner, other.group, other.member)
        assert (one.prompt_tokens, one.generated_tokens) == (other.prompt_tokens, other.generated_tokens)
    assert server.prompts[:4] == [theirs[0].segments[0].prompt] * 4


def test_sampled_log_probabilities_are_the_policys_at_this_temperature(policy, tmp_path):
    sampling = Sampling(temperature=0.7, max_step_tokens=5, max_tokens=1400, seed=3)
    with TinyVllm(*policy) as server:
        driver = served(server, policy, tmp_path, sampling)
        driver.update_weights(policy[0])
        first = driver.run(environments(), seeds=[1, 2, 3, 4])
        again = driver.run(environments(), seeds=[1, 2, 3, 4])
    assert parts(first) == parts(again)
    assert len({tuple(rollout.segments[0].tokens) for rollout in first}) > 1
    for rollout in first:
        ids: list[int] = []
        for segment in rollout.segments:
            ids += segment.prompt
            with torch.no_grad():
                logits = policy[0](input_ids=torch.tensor([ids + segment.tokens])).logits[0, len(ids) - 1 : -1] / 0.7
            wanted = torch.log_softmax(logits, -1)[range(len(segment.tokens)), segment.tokens]
            assert segment.logprobs == pytest.approx(wanted.tolist(), abs=1e-4)
            ids += segment.tokens


def test_every_update_hands_over_the_weights_and_empties_the_prefix_cache(policy, tmp_path):
    after = moved(policy)
    with TinyVllm(*policy) as server:
        driver = served(server, policy, tmp_path)
        driver.update_weights(policy[0])
        before = driver.run(environments(1))
        driver.update_weights(after)
        now = driver.run(environments(1))
        assert server.loads == [str(tmp_path / "weights" / "current")] * 2 and server.resets == 2
    assert parts(now) == parts(local(after, policy, count=1)) != parts(before)
    assert driver.difference < 1e-4
    assert sorted(file.name for file in (tmp_path / "weights").iterdir()) == ["current"]


def test_adapters_arrive_merged(policy, tmp_path):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(moved(policy, 0.0), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    plain = {name: value.clone() for name, value in adapted.state_dict().items()}
    with TinyVllm(*policy) as server:
        driver = served(server, policy, tmp_path)
        driver.update_weights(adapted)
        assert parts(driver.run(environments(1))) == parts(local(adapted, policy, count=1))
    assert all(torch.equal(value, plain[name]) for name, value in adapted.state_dict().items() if "lora" in name)


def test_a_server_that_is_lost_gives_failed_rollouts_never_zeros(policy, tmp_path):
    with TinyVllm(*policy) as server:
        driver = served(server, policy, tmp_path)
        driver.update_weights(policy[0])
    found = driver.run(environments())
    assert [rollout.owner for rollout in found] == ["provider"] * 4
    assert not any(rollout.valid or rollout.verdicts for rollout in found)
    assert "tries" in found[0].failure.message
    with pytest.raises(CM2Error, match="no server could take the weights"):
        driver.update_weights(policy[0])


def test_faults_that_pass_cost_tries_and_change_nothing(policy, tmp_path):
    with TinyVllm(*policy) as server:
        driver = served(server, policy, tmp_path, retries=12)
        server.down, server.refuse_resets = 3, 2
        driver.update_weights(policy[0])
        server.down = 9
        assert parts(driver.run(environments())) == parts(local(policy[0], policy))


def test_a_server_that_came_back_with_old_weights_has_failed(policy, tmp_path):
    after = moved(policy)

    def restart_once(server):
        if len(server.prompts) == 3:
            server.restart()

    with TinyVllm(*policy) as server:
        driver = served(server, policy, tmp_path)
        driver.update_weights(after)
        server.before_answer = restart_once
        found = driver.run(environments())
        assert [rollout.owner for rollout in found] == ["provider"] * 4
        assert "other weights" in found[0].failure.message
        server.before_answer = None
        driver.update_weights(after)
        assert all(rollout.valid for rollout in driver.run(environments()))


def test_the_rollouts_of_a_task_go_to_one_replica_and_another_takes_over(policy, tmp_path):
    with TinyVllm(*policy) as one, TinyVllm(*policy) as two:
        driver = served([one, two], policy, tmp_path)
        driver.update_weights(policy[0])
        driver.run(environments(2))
        asked = sorted([one, two], key=lambda server: len(server.prompts))
        assert not asked[0].prompts and len(asked[1].prompts) >= 2
        asked[1].stop()
        assert parts(driver.run(environments(2))) == parts(local(policy[0], policy, count=2))
        driver.update_weights(moved(policy))  # without the one that is gone
        assert all(rollout.valid for rollout in driver.run(environments(2))) and asked[0].loads[-1]


@pytest.mark.parametrize(
    ("changes", "sampling", "settings", "told"),
    [
        ({}, GREEDY, {"model": "other"}, "serves policy, not other"),
        ({"length": 100}, GREEDY, {}, "takes 100 tokens, a rollout may have 1400"),
        ({"raw": True}, Sampling(temperature=0.5, max_tokens=1400), {}, "before the temperature"),
        ({"tokenizer": "other"}, GREEDY, {}, "cuts a text into other tokens"),
        ({}, Sampling(top_p=0.9, max_tokens=1400), {}, "truncated sampling"),
    ],
)
def test_a_server_that_cannot_be_used_is_refused_at_the_start(policy, tmp_path, changes, sampling, settings, told):
    with TinyVllm(*policy, raw=changes.get("raw", False)) as server:
        server.length = changes.get("length", 2048)
        if "tokenizer" in changes:
            server.tokenizer = lambda text, **_: {"input_ids": [ord(one) % 90 for one in text]}
        with pytest.raises(ConfigError, match=told):
            served(server, policy, tmp_path, sampling, **settings)


def test_another_model_behind_the_address_is_found_out(policy, tmp_path):
    other, _ = tiny_chat(seed=9, **SHAPE | {"intermediate_size": 64})
    with TinyVllm(other, policy[1]) as server, pytest.raises(CM2Error, match="do not fit"):
        served(server, policy, tmp_path).update_weights(policy[0])
    with TinyVllm(*policy) as server:
        driver = served(server, policy, tmp_path)
        server._load = lambda body: (200, {"results": [None]})  # says yes and loads nothing
        with pytest.raises(CM2Error, match="nats from the trainer's"):
            driver.update_weights(moved(policy, 1.0))


def test_a_server_without_its_development_mode_says_how_to_start_it(policy, tmp_path):
    with TinyVllm(*policy, dev=False) as server, pytest.raises(ConfigError, match="VLLM_SERVER_DEV_MODE=1"):
        served(server, policy, tmp_path).update_weights(policy[0])


def test_settings_need_an_address():
    with pytest.raises(ConfigError, match="base_url is needed"):
        Generation(engine="vllm")
    with pytest.raises(ConfigError, match="no address"):
        Generation(engine="vllm", base_url="localhost:8000")
