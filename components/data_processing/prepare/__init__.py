from components.data_processing.prepare.component import prepare as prepare
