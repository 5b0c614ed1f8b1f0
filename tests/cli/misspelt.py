"""Settings as people mistype them, and what they meant: the first of the names suggested, or the second.

Written down ahead of the code that suggests. A line is what is typed, and what would be right: a key, `key=value`, or
any of several divided by `|`. Where a value alone is wrong, what is right is a part of the line that says so.
"""

KEYS = [
    ("optimzer.lr=1e-3", "optimizer.lr"),
    ("optimizer.learning_rate=1e-3", "optimizer.lr"),
    ("optimizer.weightdecay=0.1", "optimizer.weight_decay"),
    ("trainer.maxsteps=100", "trainer.max_steps"),
    ("trainer.max-steps=100", "trainer.max_steps"),
    ("trainer.percision=bf16", "trainer.precision"),
    ("Trainer.max_steps=10", "trainer.max_steps"),
    ("trainer.grad_clipping=1.0", "trainer.grad_clip"),
    ("scheduler.warmup=100", "scheduler.warmup_steps"),
    ("scheduler.min_learning_rate=1e-5", "scheduler.min_lr_ratio"),
    ("model.dim=256", "model.modules.transformer.dim"),
    ("model.transformer.n_heads=4", "model.modules.transformer.n_heads"),
    ("model.modules.transfomer.n_layers=4", "model.modules.transformer.n_layers"),
    ("model.modules.position_embeding.kind=rotary", "model.modules.position_embedding.kind"),
    ("model.modules.output_projection.tie_weight=false", "model.modules.output_projection.tie_weights"),
    ("model.max_seq_len=256", "model.params.max_seq_len"),
    ("model.dropout=0.1", "model.params.dropout"),
    ("data.sequence_length=64", "data.seq_len"),
    ("generation.temprature=0.7", "generation.temperature"),
    ("callbacks.sample_text.promt=hi", "callbacks.sample_text.prompt"),
]
MOVED = [
    ("lr=1e-3", "optimizer.lr"),
    ("max_steps=100", "trainer.max_steps"),
    ("batch_size=16", "trainer.batch_size"),
    ("seq_len=64", "data.seq_len"),
    ("vocab_size=512", "tokenizer.vocab_size|model.params.vocab_size"),
    ("trainer.lr=1e-3", "optimizer.lr"),
    ("trainer.seed=3", "seed"),
]
GROUPS = [
    ("optimiser=adamw", "optimizer"),
    ("modle=gpt2_medium", "model"),
    ("datasets=text", "data"),
    ("tokeniser=byte", "tokenizer"),
    ("schedule=cosine", "scheduler"),
]
CHOICES = [
    ("optimizer=adam", "optimizer=adamw"),
    ("model=gpt2-medium", "model=gpt2_medium"),
    ("model=gpt2", "model=gpt2_base"),
    ("data=shakespeare", "data=shakespeare_char"),
    ("tokenizer=char", "tokenizer=simple"),
    ("trainer=cuda", "trainer=gpu"),
    ("experiment=shakespeare_cpu", "experiment=shakespeare_char_cpu"),
    ("data=corpus/input.txt", "data=text data.path=corpus/input.txt"),
]
PREFIXED = [
    ("+optimizer.beta=[0.9,0.99]", "optimizer.betas"),
    ("++trainer.max_step=50", "trainer.max_steps"),
    ("+learning_rate=1e-3", "optimizer.lr"),
    ("~calbacks", "callbacks"),
    ("+logger@logger.tb=tensorbord", "logger@logger.tb=tensorboard"),
]
FLAGS = [
    ("--lr 3e-4", "optimizer.lr=3e-4"),
    ("--model=base", "model=base"),
    ("--max-steps 100", "trainer.max_steps=100"),
]
OTHER_TOOLS = [
    ("n_layer=6", "model.modules.transformer.n_layers"),
    ("n_embd=384", "model.modules.transformer.dim"),
    ("block_size=256", "model.params.max_seq_len|data.seq_len"),
    ("max_iters=5000", "trainer.max_steps"),
    ("device=cuda", "trainer=gpu|trainer.accelerator=gpu"),
    ("num_train_epochs=3", "trainer.max_epochs"),
    ("per_device_train_batch_size=8", "trainer.batch_size"),
    ("bf16=true", "trainer.precision=bf16"),
]
VALUES = [
    ("trainer.max_steps=1e4", "trainer.max_steps=10000"),
    ("trainer.compile=yes", "trainer.compile=true"),
    ("model.modules.transformer.activation=swish", "model.modules.transformer.activation=silu"),
    ("trainer.precision=fp16", "trainer.precision=16"),
]
SIXTY = [*KEYS, *MOVED, *GROUPS, *CHOICES, *PREFIXED, *FLAGS, *OTHER_TOOLS, *VALUES]

# Twenty more, written down when the code was done and not looked at while it was made.
FRESH = [
    ("optimizer.lrate=1e-3", "optimizer.lr"),
    ("trainer.bacth_size=4", "trainer.batch_size"),
    ("trainer.validate_every=10", "trainer.val_every"),
    ("scheduler.warm_up_steps=10", "scheduler.warmup_steps"),
    ("model.modules.attention.n_heads=4", "model.modules.transformer.n_heads"),
    ("model.n_head=4", "model.modules.transformer.n_heads"),
    ("weight_decay=0.0", "optimizer.weight_decay"),
    ("top_k=5", "generation.top_k"),
    ("precision=bf16", "trainer.precision"),
    ("model=lama3_2_1b", "model=llama3_2_1b"),
    ("tokenizer=tiktokn", "tokenizer=tiktoken"),
    ("data=stdlib", "data=python_stdlib"),
    ("scheduler=linear_warmup", "scheduler=linear"),
    ("logger=tensor_board", "logger=tensorboard"),
    ("+trainer.checkpoint_steps=5", "trainer.save_every"),
    ("--batch-size=4", "trainer.batch_size=4"),
    ("gradient_accumulation=8", "trainer.global_batch_size"),
    ("max_seq_length=128", "model.params.max_seq_len|data.seq_len"),
    ("model.modules.position_embedding.kind=roatry", "model.modules.position_embedding.kind=rotary"),
    ("rnu_dir=x", "run_dir"),
]
