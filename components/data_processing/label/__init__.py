from components.data_processing.label.component import label as label
