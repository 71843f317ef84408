from components.data_processing.begin.component import begin as begin
