from components.training.train.component import train as train
