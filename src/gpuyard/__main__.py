from gpuyard.main import run

run()
