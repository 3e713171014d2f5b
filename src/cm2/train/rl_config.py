"""RlConfig: every setting of a reinforcement learning run, each with the reason to change it.

The same object from Python, from a recipe (YAML) and from the flags of `cm2 rl`; ranges are checked when it is loaded.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from cm2.credit import Credit
from cm2.credit.config import Gate, Level, Normalise, Reading, TurnBaseline, TurnCredit
from cm2.credit.curriculum import strictness
from cm2.errors import ConfigError
from cm2.judge.judging import Judging
from cm2.judge.probes import Probing
from cm2.rollout import generation
from cm2.rollout.generation import Generation
from cm2.simulate.config import SimulatorConfig
from cm2.train import benchmarking
from cm2.train.alarms import Alarming
from cm2.train.benchmarking import Benchmarking
from cm2.train.embedded import NAME
from cm2.train.ppo_config import PpoConfig

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Unit = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class RlConfig(msgspec.Struct, kw_only=True):
    """Everything that decides a run. The defaults suit the embedded model on a CPU; `recipes/` has the paper's."""

    input: str
    """Tasks: dialogues with checklists (cm2 label). Fresh ones at every update: a small pool is memorised."""
    output: str
    """The run folder. The same command goes on where a killed one stopped."""
    model: str = NAME
    """The cold start, also what the KL penalty holds on to: a run's model/ folder, a Hugging Face folder or name."""
    updates: Count = 200
    """Optimizer steps at the most."""
    minutes: Positive | None = None
    """Stop after so many minutes of training, resumed parts included."""
    prompts: Count = 8
    """Tasks an update. More of them steady the gradient."""
    group: Annotated[int, msgspec.Meta(ge=2)] = 8
    """Rollouts a task. The paper: 24 or 48, larger is better; on a CPU 8."""
    probe: Count | None = None
    """Members that are run first; where they all earn the same, the rest are not run. None runs all."""
    algorithm: Literal["grpo", "ppo"] = "grpo"
    """grpo: a rollout is compared with its group; no critic to train or to trust. ppo: a value head predicts what is
    still to be earned, and every step is credited against it (`ppo`): the choice where groups must be small, or where
    dialogues are long and their steps' rewards tell much."""
    ppo: PpoConfig = msgspec.field(default_factory=PpoConfig)
    """The critic; see `PpoConfig`."""
    level: Level = "trajectory"
    """Where advantages are told apart; see `Credit`."""
    normalise: Normalise = "none"
    """Whether advantages are divided by the group's deviation; see `Credit`."""
    reading: Reading = "gated"
    """How items are paid that were judged true before their dependencies; see `Credit`."""
    turn_baseline: TurnBaseline = "group"
    """Turn level only; see `Credit`."""
    turn_credit: TurnCredit = "own"
    """Turn level only; see `Credit`."""
    backfill: bool = True
    """Step level only; see `Credit`."""
    judge_flip: Annotated[float, msgspec.Meta(ge=0, lt=0.5)] = 0.0
    """How often a verdict is wrong, as `cm2 judge calibrate` measures it; see `Credit`. Not for the step level."""
    gate: Gate = "ends"
    """What an unsatisfied strict item does; see `Credit`. All but `ends` pay where the method pays nothing."""
    strictness: Unit = 0.5
    """Of a gate that does not end: 1 is the method, 0 an open gate; see `Credit`."""
    curriculum: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Updates over which `strictness` rises in a straight line to 1, the method's own reward; 0: it stays."""
    resample: Annotated[int, msgspec.Meta(ge=0)] = 0
    """At most so many further groups an update in the place of groups without signal (all members earned the same).
    Every update then has its full gradient, at the price of more rollouts; tasks that are too hard or too easy count
    less. 0: such groups stay, and give nothing."""
    lr: Positive = 2e-5
    """Learning rate after the warm-up, constant. The paper's 8B model: 3e-6."""
    warmup: Annotated[int, msgspec.Meta(ge=0)] = 2
    """Steps in which the learning rate rises."""
    beta: NotNegative = 1e-3
    """Coefficient of the KL penalty (k3) to the start. 0 saves the reference's forward pass and memory."""
    kl_gradient: Literal["k3", "unbiased"] = "k3"
    """k3: the gradient of the k3 estimate itself, as published. unbiased: k3 times the ratio, whose gradient is that of
    the reverse KL; choose it when the policy moves far from the start."""
    clip_low: Share = 0.2
    """How far the ratio to the sampling policy may fall before its gradient is cut. Matters when batches are reused."""
    clip_high: Positive = 0.2
    """How far it may rise; above clip_low it lets rare good actions grow faster."""
    loss: Literal["token_mean", "sequence_mean", "dr_grpo"] = "token_mean"
    """Mean over all sampled tokens of the batch (the paper), over each rollout's first, or over a constant length."""
    importance: Literal["none", "token", "sequence"] = "none"
    """Correct for a sampler that is not quite the policy that is trained (bfloat16 or quantised decoding, a server):
    weigh by the truncated ratio of the two, a token or a whole rollout. Costs one forward pass; `log_ratio_abs` in the
    metrics says whether it is needed."""
    importance_max: Positive = 2.0
    """Where that ratio is cut off: bias for bounded variance. The paper: 2."""
    epochs: Count = 1
    """Passes over a batch of rollouts: cheap rollouts want 1, expensive ones 2 or more with clipping."""
    mini_batches: Count = 1
    """Optimizer steps a pass; must divide prompts × group."""
    layers: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Train only the top so many layers and the final norm; 0 trains everything."""
    lora: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Rank of LoRA adapters on all linear layers but the head; 0 trains the weights themselves."""
    temperature: Positive = 1.0
    """Of the rollouts. Lower is more careful and explores less; a group that agrees teaches nothing."""
    max_step_tokens: Count = 128
    """Tokens of one action; a longer one is cut off, and the rollout ends."""
    max_tokens: Count = 2048
    """Tokens of a whole rollout, its prompt included."""
    max_turns: Count | None = None
    """Turns of each dialogue that are played."""
    max_steps: Count = 8
    """Steps of a turn: ends an agent that calls tools in circles."""
    batch: Count = 128
    """Rollouts that are decoded at once."""
    overlap: Annotated[int, msgspec.Meta(ge=0)] | None = 32
    """Forward passes that the answer of a judge or simulator which asks a model takes, while other rollouts are decoded
    on: a run then repeats exactly, however fast the answers come. Best is about the time of an answer over that of a
    pass. None takes answers as they come: a run then repeats up to rounding only. Checks and local worlds do not wait.
    """
    micro_tokens: Count = 1536
    """Tokens of one forward and backward pass. Memory, not numbers, depends on it (about 1.5 MB a token at 135M)."""
    clip: Positive = 1.0
    """The largest gradient norm of a step."""
    weight_decay: NotNegative = 0.0
    """AdamW's pull to zero."""
    judging: Judging = msgspec.field(default_factory=Judging)
    """Who judges; see `Judging`. The default: compiled checks, without a model."""
    simulator: SimulatorConfig = msgspec.field(default_factory=SimulatorConfig)
    """Who answers the tools; see `SimulatorConfig`. The default: the task's own world, else replay and its fallback."""
    models: str | None = None
    """YAML file of the models that judge and simulate; needed where one of them asks a model."""
    generation: Generation = msgspec.field(default_factory=Generation)
    """Who decodes the rollouts; see `Generation`. The default: this process."""
    probing: Probing = msgspec.field(default_factory=Probing)
    """What keeps an eye on the judge; see `Probing`. Off by default."""
    gold: Judging | None = None
    """The better judge of the probes; checks, where training pays by a model."""
    gold_models: str | None = None
    """YAML file of the gold judge's models; None: `models`."""
    calibration: str | None = None
    """File of `cm2 judge calibrate` about the judge: what canaries are held against."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; auto: bfloat16 where the hardware multiplies it."""
    threads: Annotated[int, msgspec.Meta(ge=1)] | Literal["auto"] | None = None
    """Of the matrix products; None leaves it to torch. `auto` measures one against all and keeps the faster for the
    whole run: where other work shares the cores, threads that wait for each other are slower than one."""
    seed: int = 0
    """Decides the order of tasks, the worlds and every draw."""
    save_every: NotNegative = 300.0
    """Seconds between checkpoints (three times the model on disk, the newest two are kept); 0 makes none but on
    Ctrl-C."""
    heldout: str | None = None
    """Tasks that are not trained on: they are rolled out now and then, and the best model is kept in RUN/best."""
    evaluate_every: Count = 20
    """Steps between two such evaluations; there is one before the first step and one after the last too. Each costs
    about as much as the rollouts of `heldout_tasks` / `group` tasks."""
    heldout_tasks: Count = 64
    """The first so many held-out tasks. More of them see smaller differences: 64 see about 0.1 of reward."""
    heldout_temperature: NotNegative = 0.0
    """0 is greedy: what a deployed agent does, and the least noise."""
    benchmarks: Benchmarking = msgspec.field(default_factory=Benchmarking)
    """A small fixed part of a benchmark, now and then; see `Benchmarking`. Off by default."""
    alarms: Alarming = msgspec.field(default_factory=Alarming)
    """When the run's own numbers are an alarm, and what then; see `Alarming`."""
    outage_minutes: NotNegative = 10.0
    """How long a server of the judge or simulator that is down is waited for; then the run stops at its last
    checkpoint. 0 does not wait: what fails costs its rollout."""
    format: str = "auto"
    """The format of `input`, when it cannot be told from the rows."""

    @property
    def credit(self) -> Credit:
        """The credit settings."""
        return Credit(
            reading=self.reading,
            level=self.level,
            normalise=self.normalise,
            turn_baseline=self.turn_baseline,
            turn_credit=self.turn_credit,
            backfill=self.backfill,
            judge_flip=self.judge_flip,
            gate=self.gate,
            strictness=self.strictness,
        )

    def credit_of(self, update: int) -> Credit:
        """The credit settings of an update, from 0 on: a curriculum's strictness rises."""
        if self.gate == "ends" or not self.curriculum:
            return self.credit
        return msgspec.structs.replace(self.credit, strictness=strictness(update, self.strictness, self.curriculum))

    def consistent(self) -> None:
        """Fail where settings exclude each other.

        Raises:
            ConfigError: they do.
        """
        if self.prompts * self.group % self.mini_batches:
            raise ConfigError(
                f"mini_batches {self.mini_batches} does not divide {self.prompts} prompts x {self.group} rollouts",
                fix="choose a divisor",
            )
        _ = self.credit  # its own settings exclude each other too
        self.benchmarks.consistent()
        if self.layers and self.lora:
            raise ConfigError("layers and lora exclude each other", fix="give one of them")
        if self.curriculum and self.gate == "ends":
            raise ConfigError("a curriculum needs a gate that can be lenient", fix="set gate to graded or chance")
        if self.algorithm == "ppo":
            if self.level != "trajectory":
                raise ConfigError(
                    f"level {self.level} is GRPO's; PPO credits every step by itself", fix="leave it out, or use grpo"
                )
            if self.judge_flip:
                raise ConfigError("judge_flip corrects GRPO's rewards", fix="leave it out, or use algorithm: grpo")
            if self.resample:
                raise ConfigError(
                    "resample replaces groups of equal members, from which PPO learns too", fix="set resample to 0"
                )
        elif self.ppo.kl_in == "reward":
            raise ConfigError("ppo.kl_in reward needs a critic that foresees it", fix="set algorithm: ppo")


FREE = (
    *("input", "output", "updates", "minutes", "save_every", "format", "micro_tokens", "batch"),
    *generation.FREE,
    *("models", "gold_models", "probing.on_alarm", "evaluate_every", "outage_minutes"),
    *("alarms.on_alarm", "alarms.window", "alarms.rate", "alarms.drop", "alarms.kl"),
    *benchmarking.FREE,
)
"""Settings on which no number of a step depends: they may change when a run is resumed."""
