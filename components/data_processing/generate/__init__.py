from components.data_processing.generate.component import generate as generate
