from components.data_processing.weigh.component import weigh as weigh
