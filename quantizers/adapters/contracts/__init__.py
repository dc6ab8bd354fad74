"""The contracts: how models call their quantizers. There is one file for each quantizer that is replaced.

| contract | package | classes that it replaces |
|---|---|---|
| ace_step | diffusers | _AceStepResidualFSQ |
| audiocraft | audiocraft | ResidualVectorQuantizer |
| academicodec | AcademiCodec (yangdongchao) | ResidualVectorQuantizer |
| chameleon | transformers | ChameleonVQVAEVectorQuantizer |
| cosmos | Cosmos-Tokenizer (NVIDIA) | VectorQuantizer |
| cosmos_fsq | Cosmos-Tokenizer (NVIDIA) | FSQuantizer |
| cosmos_residual_fsq | Cosmos-Tokenizer (NVIDIA) | ResidualFSQuantizer |
| dac | descript-audio-codec | ResidualVectorQuantize |
| dac_stage | descript-audio-codec | VectorQuantize |
| dac_stage_transformers | transformers | DacVectorQuantize |
| dac_transformers | transformers | DacResidualVectorQuantizer |
| dualcodec | dualcodec | ResidualVectorQuantize |
| emu3 | transformers | Emu3VQVAEVectorQuantizer |
| encodec | encodec | ResidualVectorQuantizer |
| encodec_stages | encodec | ResidualVectorQuantization |
| encodec_transformers | transformers | EncodecResidualVectorQuantizer |
| factorized | FAcodec, Amphion (NaturalSpeech 3) | FactorizedVectorQuantize |
| factorized_amphion | Amphion (MaskGCT, Vevo) | FactorizedVectorQuantize |
| factorized_bigcodec | BigCodec | FactorizedVectorQuantize |
| factorized_spark | Spark-TTS | FactorizedVectorQuantize |
| gigatok | GigaTok | VectorQuantizer |
| gigatok_fsq | GigaTok | FSQ |
| glm_image | transformers | GlmImageVQVAEVectorQuantizer |
| ibq | SEED-Voken, Emu3.5 | IndexPropagationQuantize |
| imagefolder | ImageFolder, XQ-GAN (lxa9867) | VectorQuantizer2 |
| imagefolder_single | ImageFolder, XQ-GAN (lxa9867) | VectorQuantizer |
| janus | transformers | JanusVQVAEVectorQuantizer |
| lerobot | LeRobot | ResidualVQ |
| llamagen | LlamaGen, FQGAN, ImageFolder, UniTok | VectorQuantizer |
| mimi | transformers | MimiResidualVectorQuantizer |
| open_magvit2 | Open-MAGVIT2, WeTok, FlowMo | LFQ |
| moshi | moshi | ResidualVectorQuantizer |
| nemo_fsq | NeMo | FiniteScalarQuantizer |
| nemo_fsq_grouped | NeMo | GroupFiniteScalarQuantizer |
| nemo_residual | NeMo | ResidualVectorQuantizer |
| nemo_residual_grouped | NeMo | GroupResidualVectorQuantizer |
| qwen3_tts | qwen-tts | DistributedGroupResidualVectorQuantization |
| snac | snac | ResidualVectorQuantize |
| speechtokenizer | speechtokenizer | ResidualVectorQuantizer |
| taming | taming-transformers, diffusers | VectorQuantizer, VectorQuantizer2 |
| taming_first | taming-transformers | VectorQuantizer |
| taming_gumbel | taming-transformers | GumbelQuantize |
| titok | 1d-tokenizer (ByteDance) | VectorQuantizer |
| unitok | UniTok (FoundationVision) | VectorQuantizerM |
| var | VAR (FoundationVision) | VectorQuantizer2 |
| vector_quantize_pytorch | vector-quantize-pytorch | VectorQuantize |
| vector_quantize_pytorch_fsp | vector-quantize-pytorch | FSP |
| vector_quantize_pytorch_fsq | vector-quantize-pytorch | FSQ |
| vector_quantize_pytorch_lfq | vector-quantize-pytorch | LFQ |
| vector_quantize_pytorch_older | vector-quantize-pytorch 1.6–1.16 | VectorQuantize |
| vector_quantize_pytorch_residual | vector-quantize-pytorch | ResidualVQ, ResidualSimVQ |
| vector_quantize_pytorch_residual_fsq | vector-quantize-pytorch | ResidualFSQ |
| vector_quantize_pytorch_residual_lfq | vector-quantize-pytorch | ResidualLFQ |
| vector_quantize_pytorch_residual_older | vector-quantize-pytorch 1.8–1.16, VQ-BeT | ResidualVQ |
| vector_quantize_pytorch_simvq | vector-quantize-pytorch | SimVQ |
| vidtok | diffusers | FSQRegularizer |
| vqvae2 | vq-vae-2-pytorch (rosinality) | Quantize |
| wav2vec2 | transformers | Wav2Vec2GumbelVectorQuantizer, |
|  |  | Wav2Vec2ConformerGumbelVectorQuantizer, |
|  |  | UniSpeechGumbelVectorQuantizer, |
|  |  | UniSpeechSatGumbelVectorQuantizer, |
|  |  | WavLMGumbelVectorQuantizer |
| wavtokenizer | WavTokenizer (jishengpeng) | ResidualVectorQuantizer |
| wetok | WeTok | GFQ |
| xcodec | transformers | XcodecResidualVectorQuantization, |
|  |  | HiggsAudioV2TokenizerResidualVectorQuantization |
| xcodec2 | transformers | Xcodec2Quantizer, NeuCodecQuantizer |

A contract recognizes a module by the name of its class and by the attributes that it reads from it. It thereby
tells apart classes of the same name in different packages. The docstring of each adapter lists
what is not supported.
"""
