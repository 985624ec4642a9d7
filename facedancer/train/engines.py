"""How TensorFlow, JAX and PyTorch differ around the train step: devices, strategies, data streams, profiling."""

import abc
import contextlib
import itertools
import os
import sys
from dataclasses import replace

from facedancer.core.console import UserError
from facedancer.core.devices import select_device, start_keras


def open_engine(config):
    """Returns the `Engine` that `KERAS_BACKEND` names, with devices as configured. Call it before anything else.

    Raises:
        UserError: if its library is not installed, or it does not support the request.
    """
    if config.deterministic and "tensorflow" not in sys.modules:
        # With oneDNN, steps on several cores differ in the last bits from run to run, which TensorFlow's determinism
        # does not prevent. TensorFlow reads this when it is imported.
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    try:
        start_keras()
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed; set KERAS_BACKEND=tensorflow, jax or torch to an engine that is"
        ) from None
    import keras

    engines = {"tensorflow": TensorFlowEngine, "jax": JaxEngine, "torch": TorchEngine}
    backend = keras.config.backend()
    if backend not in engines:
        raise UserError(f"KERAS_BACKEND is {backend}; training supports {', '.join(engines)}")
    engine = engines[backend](config)
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy("float32" if config.precision == "float32" else f"mixed_{config.precision}")
    if config.batch_size % (engine.replicas * config.accumulate):
        raise UserError(
            f"--batch_size {config.batch_size} cannot be divided by {engine.replicas} devices times"
            f" --accumulate {config.accumulate}"
        )
    return engine


class Engine(abc.ABC):
    """Base class of the engines.

    Attributes:
        name: the library.
        device: description of the hardware.
        replicas: number of devices that share a batch.
        is_chief: whether this process is the one that writes the run's files.
        worker: `(index, count)`: this process, among the `count` that share the shards.
    """

    name = None
    device = "CPU"
    replicas = 1
    is_chief = True
    worker = (0, 1)

    def scope(self):
        """Returns the context in which to build everything that is trained."""
        return contextlib.nullcontext()

    def stream(self, pattern, options):
        """Returns an infinite stream for `fit`; arguments are those of `record_loader.iterate_batches`."""
        from facedancer.dataset.record_loader import iterate_batches

        batches = iterate_batches(pattern, options)
        return ((batch,) for batch in batches)  # Keras expects a tuple of inputs, targets and weights

    def first_batches(self, number, pattern, options):
        """Returns a list of the first batches of one epoch, as dictionaries of arrays."""
        from facedancer.dataset.record_loader import iterate_batches

        batches = iterate_batches(pattern, replace(options, repeat=False), processes=0)
        return list(itertools.islice(batches, number))

    @contextlib.contextmanager
    def data_errors(self, pattern):
        """Turns the engine's errors for damaged records into one-line errors."""
        yield

    def synchronize(self, trainer):
        """Updates a trainer's variables to the last step. Call it before reading them."""
        return  # they are always up to date

    @abc.abstractmethod
    def count_flops(self, trainer, batch):
        """Counts a train step's floating-point operations on a batch (name -> array); may run the step."""

    @abc.abstractmethod
    def start_profile(self, folder):
        """Starts profiling the devices, for TensorBoard."""

    @abc.abstractmethod
    def stop_profile(self):
        """Stops profiling and writes the profile."""


class TensorFlowEngine(Engine):
    name = "tensorflow"

    def __init__(self, config):
        import tensorflow as tf

        self._strategy = None
        if config.strategy == "single":
            self.device = select_device(config.device_id)
        elif config.device_id is not None:
            raise UserError(f"--device_id names one device, --strategy {config.strategy} takes all")
        else:
            for gpu in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(gpu, True)
            if config.strategy == "multiworker" and "TF_CONFIG" not in os.environ:
                raise UserError("--strategy multiworker: TF_CONFIG must name the workers and which one this is")
            # A multi-worker strategy must be created before anything runs.
            kind = "MirroredStrategy" if config.strategy == "mirrored" else "MultiWorkerMirroredStrategy"
            self._strategy = getattr(tf.distribute, kind)()
            self.replicas = self._strategy.num_replicas_in_sync
            self.device = f"{self.replicas} devices, {config.strategy}"
            resolver = self._strategy.cluster_resolver
            self.is_chief = config.strategy == "mirrored" or not resolver.task_id
            if config.strategy == "multiworker":
                self.worker = (resolver.task_id, resolver.cluster_spec().num_tasks("worker"))
        self._is_multiworker = config.strategy == "multiworker"
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        # TensorFlow's fusion of convolution and activation fails on these graphs, logs an error for each, and would
        # save nothing.
        tf.config.optimizer.set_experimental_options({"remapping": False})

    def scope(self):
        return self._strategy.scope() if self._strategy else contextlib.nullcontext()

    def stream(self, pattern, options):
        import tensorflow as tf

        from facedancer.dataset.input_pipeline import build_dataset

        if not self._is_multiworker:
            dataset = build_dataset(pattern, options)
            sharding = tf.data.Options()  # batches are split over the devices, shards are not
            sharding.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
            return dataset.with_options(sharding)

        def own_batches(context):
            workers = context.num_input_pipelines
            per_worker = self.replicas // workers  # devices, each of which takes one of these batches per step
            own = replace(
                options,
                batch_size=context.get_per_replica_batch_size(options.batch_size),
                start_step=options.start_step * per_worker,
                worker=(context.input_pipeline_id, workers),
            )
            return build_dataset(pattern, own)

        return self._strategy.distribute_datasets_from_function(own_batches)

    def first_batches(self, number, pattern, options):
        from facedancer.dataset.input_pipeline import build_dataset

        dataset = build_dataset(pattern, replace(options, repeat=False))
        with self.data_errors(pattern):
            return list(dataset.take(number).as_numpy_iterator())

    def data_errors(self, pattern):
        from facedancer.dataset.input_pipeline import damage_named

        return damage_named(pattern)

    def count_flops(self, trainer, batch):
        import tensorflow as tf

        specs = {name: tf.TensorSpec(value.shape, value.dtype) for name, value in batch.items()}
        # A separate function, since methods hide the shapes; without AutoGraph, as in `fit`.
        step = tf.function(lambda batch: trainer.train_step(batch), autograph=False)
        options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        options["output"] = "none"
        graph = step.get_concrete_function(specs).graph
        return tf.compat.v1.profiler.profile(graph, options=options).total_float_ops

    def start_profile(self, folder):
        import tensorflow as tf

        tf.profiler.experimental.start(str(folder))

    def stop_profile(self):
        import tensorflow as tf

        tf.profiler.experimental.stop()


class JaxEngine(Engine):
    name = "jax"

    def __init__(self, config):
        import jax
        import keras

        if config.precision == "float16":
            raise UserError("--precision float16: not on JAX, where Keras' loss scaling fails; use bfloat16")
        if config.strategy == "multiworker":
            raise UserError("--strategy multiworker: only on TensorFlow; on JAX use mirrored")
        devices = jax.devices()
        if config.strategy == "mirrored":
            keras.distribution.set_distribution(keras.distribution.DataParallel())
            self.replicas = len(devices)
            self.device = f"{self.replicas} devices, mirrored"
        else:
            device = _pick(devices, jax.devices("cpu"), config.device_id)
            jax.config.update("jax_default_device", device)
            self.device = str(device)

    def synchronize(self, trainer):
        trainer.jax_state_sync()

    def count_flops(self, trainer, batch):
        import jax

        state = trainer._get_jax_state(
            trainable_variables=True, non_trainable_variables=True, optimizer_variables=True, metrics_variables=True
        )
        analysis = jax.jit(trainer.train_step).lower(state, (batch,)).cost_analysis()
        return int(analysis["flops"])

    def start_profile(self, folder):
        import jax

        jax.profiler.start_trace(str(folder))

    def stop_profile(self):
        import jax

        jax.profiler.stop_trace()


class TorchEngine(Engine):
    name = "torch"

    def __init__(self, config):
        import torch

        if config.strategy != "single":
            raise UserError(f"--strategy {config.strategy}: not on PyTorch, which trains on one device")
        if config.jit_compile:
            raise UserError("--jit_compile: XLA works with TensorFlow and JAX, not PyTorch")
        if config.device_id not in (None, -1) or (config.device_id is None and torch.cuda.is_available()):
            number = config.device_id or 0
            if number >= torch.cuda.device_count():
                raise UserError(f"GPU {number} was asked for, PyTorch finds {torch.cuda.device_count()}")
            if number:
                raise UserError(
                    "--device_id: Keras on PyTorch uses the first GPU; hide others with CUDA_VISIBLE_DEVICES"
                )
            self.device = f"GPU {number} ({torch.cuda.get_device_name(number)})"
        elif torch.cuda.is_available():
            raise UserError("--device_id -1: Keras on PyTorch uses the GPU; hide it with CUDA_VISIBLE_DEVICES=")
        torch.use_deterministic_algorithms(config.deterministic)

    def count_flops(self, trainer, batch):
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            trainer.train_step((batch,))
        return counter.get_total_flops()

    def start_profile(self, folder):
        import torch

        handler = torch.profiler.tensorboard_trace_handler(str(folder))
        self._profile = torch.profiler.profile(on_trace_ready=handler)
        self._profile.start()

    def stop_profile(self):
        self._profile.stop()


def _pick(devices, processors, device_id):
    """Picks a JAX device by number, -1 for the CPU, None for the first."""
    if device_id == -1:
        return processors[0]
    gpus = [device for device in devices if device.platform != "cpu"]
    if device_id is None:
        return devices[0]
    if device_id >= len(gpus):
        raise UserError(f"GPU {device_id} was asked for, JAX finds {len(gpus)}; --device_id -1 works on the CPU")
    return gpus[device_id]
