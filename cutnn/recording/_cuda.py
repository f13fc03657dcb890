class GraphRecording: pass
